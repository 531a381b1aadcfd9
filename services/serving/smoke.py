"""The smoke test: does the Bento answer over HTTP as the model did offline?"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.serving.package import bento_folder
from services.serving.process import serve_bento
from tasks.core.errors import DriftlineError, Unavailable
from tasks.core.files import tail
from tasks.core.sockets import http_client
from tasks.knowledge.labels import EVERY, LABELS_HEADER
from tasks.language.embedder import Embedder
from tasks.language.upstream import UPSTREAM
from tasks.release.language import SCHEMA
from tasks.release.seal import EMBEDDER, GOLDEN, read_manifest
from tasks.train.classes import matches_label

if TYPE_CHECKING:
    import httpx

REMOTE_EXAMPLES = 4  # of a model behind an address, whose answers are paid for
VECTOR_TOLERANCE = 1e-4  # other threads sum in another order
NEAR_TIE_NATS = (
    0.25  # nats between two tokens of which either may come first: other batches, and a GPU, round otherwise
)


def smoke(folder: Path, address: str, log: Path | None = None) -> dict[str, float]:
    """Send a release's golden examples to a running service; returns `examples`, and `ms_per_request` over HTTP.

    Raises: DriftlineError that names the first different answer, or Unavailable, both with the end of the server's log.
    """
    import httpx

    manifest = read_manifest(folder)
    digest, is_chat = manifest["digest"], manifest["sealed"]["kind"] == "llm"
    golden = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
    if (folder / UPSTREAM).is_file():
        golden = golden[:REMOTE_EXAMPLES]
    try:
        # evaluation has seen all passages
        with http_client(address, timeout=60, headers={LABELS_HEADER: EVERY}) as client:
            if not is_chat:
                return _check_tabular(client, digest, golden)
            checked = _Checked(is_json=(folder / SCHEMA).is_file(), is_remote=(folder / UPSTREAM).is_file())
            metrics = _check_chat(client, digest, golden, checked)
            if manifest["sealed"].get("serving", {}).get("embedder"):
                _check_embeddings(client, folder / EMBEDDER, [example["messages"][-1]["content"] for example in golden])
            return metrics
    except (httpx.TransportError, ValueError) as error:
        unavailable = Unavailable("The service does not answer.", found=f"{type(error).__name__}: {error}")
        raise _with_log(unavailable, address, log) from error
    except DriftlineError as error:
        raise _with_log(error, address, log) from error


def smoke_bento(
    folder: Path, tag: str, environment: Mapping[str, str], log: Path, timeout: float = 90
) -> dict[str, float]:
    """Serve a Bento, smoke-test it, and stop it; `ready_s` is the time of its start.

    `environment` names BENTOML_HOME, where the Bento is.
    """
    start = time.monotonic()
    bento = bento_folder(Path(environment["BENTOML_HOME"]), tag)
    with serve_bento(bento, environment, log, timeout=timeout) as address:
        ready = time.monotonic() - start
        return {"ready_s": ready, **smoke(folder, address, log)}


def _check_tabular(client: httpx.Client, digest: str, golden: list[dict[str, Any]]) -> dict[str, float]:
    address = str(client.base_url)
    rows = [{"example_id": example["example_id"], **example["features"]} for example in golden]
    answers = client.get("/release").json()
    if answers.get("release") != digest:
        raise _smoke_failure(address, "Another release answers.", str(answers.get("release")), digest)
    _require_same_predictions(address, digest, golden, _predict(client, rows))
    seconds = []
    for example, row in zip(golden, rows, strict=True):
        start = time.perf_counter()
        answer = _predict(client, [row])
        seconds.append(time.perf_counter() - start)
        _require_same_predictions(address, digest, [example], answer)
    refused = client.post("/predict", json={"rows": [{**rows[0], "no such field": 1}]})
    if not 400 <= refused.status_code < 500 or "no such field" not in refused.text:
        found = f"{refused.status_code} {refused.text[:200]}"
        raise _smoke_failure(address, "A request with an unknown field is not refused.", found, "4xx, naming it")
    return {"examples": len(golden), "ms_per_request": 1000 * sorted(seconds)[len(seconds) // 2]}


@dataclass(frozen=True)
class _Checked:
    """What can be required of the answers; those of a server behind an address may differ from one time to the next."""

    is_json: bool
    is_remote: bool


def _check_chat(client: httpx.Client, digest: str, golden: list[dict[str, Any]], checked: _Checked) -> dict[str, float]:
    """Require the golden answers, complete and streamed, without the answer format; then an answer in that format."""
    address, seconds = str(client.base_url), []
    for example in golden:
        body = _unconstrained(example)
        start = time.perf_counter()
        response = client.post("/v1/chat/completions", json=body)
        seconds.append(time.perf_counter() - start)
        if not response.is_success:
            found = f"{response.status_code} {response.text[:500]}"
            raise _smoke_failure(address, "The service refuses a golden example.", found, "200")
        answer = response.json()
        if answer.get("release") != digest:
            raise _smoke_failure(address, "Another release answers.", str(answer.get("release")), digest)
        text = answer["choices"][0]["message"]["content"]
        if not checked.is_remote:
            _require_same_text(client, example, text, "An answer differs from the offline one.")
    text = _stream_text(client, {**_unconstrained(golden[0]), "stream": True})
    if not checked.is_remote:
        _require_same_text(client, golden[0], text, "A streamed answer differs from the offline one.")
    answer = client.post("/v1/chat/completions", json={"messages": golden[0]["messages"]}).json()
    if checked.is_json and not checked.is_remote:
        json.loads(answer["choices"][0]["message"]["content"])  # the release's schema guarantees JSON
    refused = client.post("/v1/chat/completions", json={"messages": [], "no such field": 1})
    if refused.status_code != 400:
        raise _smoke_failure(address, "A request without messages is not refused.", str(refused.status_code), "400")
    return {"examples": len(golden), "ms_per_request": 1000 * sorted(seconds)[len(seconds) // 2]}


def _unconstrained(example: dict[str, Any]) -> dict[str, Any]:
    """A request without answer format and prompt cache: a cached prefix rounds otherwise, by up to one nat."""
    return {"messages": example["messages"], "response_format": {"type": "text"}, "cache_prompt": False}


def _require_same_text(client: httpx.Client, example: dict[str, Any], text: str, problem: str) -> None:
    """Require the golden answer, or one that leaves it at a near tie of the service's token probabilities."""
    name, expected = example["example_id"], example["answer"]
    if text == expected:
        return
    response = client.post(
        "/v1/chat/completions", json={**_unconstrained(example), "logprobs": True, "top_logprobs": 5}
    )
    tokens = (response.json()["choices"][0].get("logprobs") or {}).get("content") or [] if response.is_success else []
    if not is_near_tie(tokens, text, expected):
        raise _smoke_failure(str(client.base_url), problem, f"{name}: {text}", f"{name}: {expected}")


def is_near_tie(tokens: list[dict[str, Any]], text: str, expected: str) -> bool:
    """Do two texts first differ where these tokens, in OpenAI's form with `top_logprobs`, are nearly a tie?

    Nothing after that position is compared: it depends on the choice.
    """
    for token in tokens:
        matches = [_continues_with(rest, token["token"]) for rest in (text, expected)]
        if all(matches):
            text, expected = (rest[len(token["token"]) :] for rest in (text, expected))
            continue
        other = expected if matches[0] else text
        others = [each["logprob"] for each in token["top_logprobs"] if _continues_with(other, each["token"])]
        return any(matches) and any(token["logprob"] - each < NEAR_TIE_NATS for each in others)
    return False


def _continues_with(rest: str, token: str) -> bool:
    return rest.startswith(token) if token else not rest  # llama.cpp's last token has no text


def _check_embeddings(client: httpx.Client, embedder: Path, texts: list[str]) -> None:
    """Require the embedder's own vectors."""
    import numpy as np

    response = client.post("/v1/embeddings", json={"input": texts}, timeout=180)  # it opens the embedder first
    if not response.is_success:
        found = f"{response.status_code} {response.text[:500]}"
        raise _smoke_failure(str(client.base_url), "The service returns no embeddings.", found, "200")
    vectors = np.array([each["embedding"] for each in response.json()["data"]])
    difference = float(np.abs(vectors - Embedder(embedder).encode(texts)).max())
    if difference > VECTOR_TOLERANCE:
        raise _smoke_failure(
            str(client.base_url), "An embedding differs.", f"by {difference:.2g}", f"at most {VECTOR_TOLERANCE}"
        )


def _stream_text(client: httpx.Client, body: dict[str, Any]) -> str:
    text = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
    return text


def _predict(client: httpx.Client, rows: list[dict[str, Any]]) -> dict[str, Any]:
    response = client.post("/predict", json={"rows": rows})
    if not response.is_success:
        found = f"{response.status_code} {response.text[:500]}"
        raise _smoke_failure(str(client.base_url), "The service refuses a golden example.", found, "200")
    predictions: dict[str, Any] = response.json()
    return predictions


def _require_same_predictions(address: str, digest: str, golden: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    if answer.get("release") != digest:
        raise _smoke_failure(address, "Another release answers.", str(answer.get("release")), digest)
    predictions = answer.get("predictions", [])
    if len(predictions) != len(golden):
        raise _smoke_failure(address, "The number of answers is wrong.", str(len(predictions)), str(len(golden)))
    for example, prediction in zip(golden, predictions, strict=True):
        if prediction["example_id"] != example["example_id"] or not matches_label(prediction, example["prediction"]):
            raise _smoke_failure(
                address,
                "An answer differs from the offline prediction.",
                json.dumps(prediction),
                f"{example['example_id']}: {example['prediction']}",
            )


def _smoke_failure(address: str, what: str, found: str, allowed: str) -> DriftlineError:
    return DriftlineError(
        f"The smoke test failed. {what}",
        where=address,
        found=found,
        allowed=allowed,
        todo="The release is not promoted; the champion goes on serving. See the service's log.",
    )


def _with_log(error: DriftlineError, address: str, log: Path | None) -> DriftlineError:
    where, found = (f"{address}, log {log}", f"{error.found}\n{tail(log)}") if log else (address, error.found)
    return type(error)(error.what, where=where, found=found, allowed=error.allowed, todo=error.todo)
