"""Opinions of a language model at any OpenAI-compatible endpoint on a sample of answers (LLM as a judge).

MLflow's own judges read their key from one fixed variable, and retry for minutes when no server responds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import DataError, Unavailable
from tasks.core.files import write_text
from tasks.core.progress import progress_step
from tasks.evaluate.config import LlmJudge
from tasks.evaluate.language.inference import message_in, stratified_sample
from tasks.language.messages import SYSTEM, USER, chat_message

if TYPE_CHECKING:
    import httpx
    import pandas as pd

MIN_READABLE = 0.9  # share of the judgements that must be readable, or their mean is biased
TOKENS = 300  # of one judgement
SCORES: dict[str, dict[str, Any]] = {
    "1-5": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
    "pass": {"type": "boolean"},
}
Opinions = dict[str, tuple[float, str]]  # score and reason by pair


def judge_opinions(judge: LlmJudge, scored: pd.DataFrame, state: Path) -> Opinions:
    """The judge's opinions on a sample of the ordinary answers; equal requests return the stored opinions.

    Raises: Unavailable when the endpoint does not respond or its address is not set; DataError when too many of its
    judgements can't be read.
    """
    import httpx

    sample = stratified_sample(scored[~scored["unsafe"]], judge.examples).to_dict("records")
    questions = [[message_in(row["messages"]), row["answer"], row["text"]] for row in sample]
    url = _address(judge)
    key = cache_key(__name__, [judge.digest, url, questions])
    cached = state / "answers" / f"{key[:16]}.opinions"
    with progress_step("ask the judge") as step:
        if cached.is_file():
            opinions: list[Any] = json.loads(cached.read_text(encoding="utf-8"))
        else:
            secret = os.environ.get(judge.key, "") if judge.key else ""
            headers = {"Authorization": f"Bearer {secret}"} if secret else {}
            timeout = httpx.Timeout(judge.seconds, connect=10)
            with (
                httpx.Client(headers=headers, timeout=timeout, trust_env=False) as client,
                ThreadPoolExecutor(judge.at_once) as pool,
            ):
                first = _ask(client, url, judge, questions[0])  # a silent endpoint fails after one request
                opinions = [first, *pool.map(lambda each: _ask(client, url, judge, each), questions[1:])]
            write_text(cached, json.dumps(opinions))
        step.figure = f"{sum(each is not None for each in opinions)} of {len(opinions)} answers judged"
    read = {row["pair_id"]: (each[0], each[1]) for row, each in zip(sample, opinions, strict=True) if each is not None}
    if len(read) < MIN_READABLE * len(sample):
        raise DataError(
            "The judge's opinions can't be read.",
            where=f"evaluate.judge, {judge.model}",
            found=f"{len(read)} of {len(sample)} follow the JSON schema of the request",
            allowed=f"at least {MIN_READABLE:.0%}",
            todo="Name a model or an engine that follows a JSON schema.",
        )
    return read


def _address(judge: LlmJudge) -> str:
    url = os.environ.get(judge.url[1:], "") if judge.url.startswith("$") else judge.url
    if not url.startswith(("http://", "https://")):
        raise Unavailable(
            "The judge has no address.",
            where=f"evaluate.judge.url: {judge.url}",
            found=f"{judge.url[1:]} is {'no address' if url else 'not set'}",
            allowed="http://... or https://..., with /v1",
            todo=f"Set {judge.url[1:]} in the environment or in .env.",
        )
    return url.rstrip("/")


def _ask(client: httpx.Client, url: str, judge: LlmJudge, question: list[str]) -> tuple[float, str] | None:
    """One opinion, or None when it can't be read. Raises: Unavailable when there is no response."""
    import httpx

    message, expected, answer = question
    text = json.dumps({"message": message, "right answer": expected, "given answer": answer}, ensure_ascii=False)
    properties = {"reason": {"type": "string"}, "score": SCORES[judge.scale]}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    scale = "the score, an integer from 1 to 5" if judge.scale == "1-5" else "as score whether it passes, true or false"
    system = f"{judge.rubric}\nAnswer with one JSON object: the reason, in one short sentence, and {scale}."
    body = {
        "model": judge.model,
        "messages": [chat_message(SYSTEM, system), chat_message(USER, text)],
        "temperature": 0,
        "max_tokens": TOKENS,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "opinion", "strict": True, "schema": schema},
        },
    }
    try:
        response = client.post(f"{url}/chat/completions", json=body)
        response.raise_for_status()
        content = response.json()["choices"][0]["message"]["content"]
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise Unavailable(
            "The judge does not answer.",
            where=f"evaluate.judge, {url}",
            found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            todo="Check that the endpoint runs, that evaluate.judge has its address and model, and that its key is set"
            " in the environment.",
        ) from error
    return _read(content, judge)


def _read(content: Any, judge: LlmJudge) -> tuple[float, str] | None:
    try:
        opinion: Mapping[str, Any] = json.loads(content)
        score, reason = opinion["score"], str(opinion["reason"])
    except (ValueError, KeyError, TypeError):
        return None
    fits = isinstance(score, bool) if judge.scale == "pass" else score in (1, 2, 3, 4, 5)
    return (float(score), reason) if fits else None
