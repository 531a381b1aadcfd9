"""A judge at an OpenAI-compatible endpoint, which here is the real engine: asked once, told why when it is silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.core.errors import DataError, Unavailable
from tasks.data.results import GGUF
from tasks.evaluate.config import LlmJudge
from tasks.evaluate.language import llm_judge as rubric
from tasks.evaluate.language.inference import Scoring, score
from tasks.evaluate.language.llm_judge import judge_opinions
from tasks.language.answer_scoring import JsonScorer
from tasks.language.engine import Engine, start_engine
from tests.language_case import smollm_base
from tests.train.pairs import SCHEMA, write_pairs


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Engine]:
    with start_engine(smollm_base().folder / GGUF, threads=1, slots=2, context=1024, name="smol") as running:
        yield running


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Six ordinary answers and two unsafe ones, half of them right."""
    folder = write_pairs(tmp_path_factory.mktemp("pairs"), held=6)
    sets = [pd.read_parquet(folder / f"{n}.parquet").assign(unsafe=n == "safety") for n in ("evaluation", "safety")]
    pairs = pd.concat(sets, ignore_index=True)
    texts = [answer if at % 2 else "I do not know." for at, answer in enumerate(pairs["answer"])]
    return score(pairs, pd.DataFrame({"text": texts}), Scoring(JsonScorer(SCHEMA)), "served")


@pytest.mark.parametrize(("scale", "allowed"), [("1-5", {1.0, 2.0, 3.0, 4.0, 5.0}), ("pass", {0.0, 1.0})])
def test_a_judge_gives_marks_with_reasons(
    endpoint: Engine,
    answers: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scale: str,
    allowed: set[float],
) -> None:
    """Each ordinary answer of the sample gets a mark on the scale and a reason; the same is not asked twice."""
    monkeypatch.setenv("OUR_JUDGE", endpoint.address + "/v1/")
    monkeypatch.setenv("OUR_JUDGE_KEY", endpoint.key)
    judge = LlmJudge.model_validate(
        {"url": "$OUR_JUDGE", "model": "smol", "key": "OUR_JUDGE_KEY", "scale": scale, "examples": 4, "at_once": 2}
    )
    monkeypatch.setattr(rubric, "MIN_READABLE", 0.0)  # so small a model may never come to the end of its reason
    found = judge_opinions(judge, answers, tmp_path)
    assert found
    assert set(found) <= set(answers.loc[~answers["unsafe"], "pair_id"])
    assert {mark for mark, _ in found.values()} <= allowed
    assert all(isinstance(reason, str) for _, reason in found.values())
    monkeypatch.setattr(rubric, "_ask", None)
    assert judge_opinions(judge, answers, tmp_path) == found
    assert endpoint.key not in "".join(p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file())


def test_a_silent_judge_is_reported(endpoint: Engine, answers: pd.DataFrame, tmp_path: Path) -> None:
    """Nobody there, no key, an address that is not set: each is said at once, and nothing of it is kept."""
    for url, reason in (
        ("http://127.0.0.1:9/v1", "ConnectError"),
        (endpoint.address + "/v1", "401"),
        ("$NO_SUCH_JUDGE", "NO_SUCH_JUDGE is not set"),
    ):
        with pytest.raises(Unavailable) as caught:
            judge_opinions(LlmJudge(url=url, model="smol"), answers, tmp_path)
        assert reason in caught.value.found
    assert not list(tmp_path.rglob("*.opinions"))


def test_opinions_that_can_not_be_read_are_no_score(
    endpoint: Engine, answers: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that is cut short in most of its answers says nothing: no mean is taken of the rest."""
    monkeypatch.setenv("OUR_JUDGE_KEY", endpoint.key)
    monkeypatch.setattr(rubric, "TOKENS", 3)
    judge = LlmJudge(url=endpoint.address + "/v1", model="smol", key="OUR_JUDGE_KEY", examples=2)
    with pytest.raises(DataError, match="can't be read") as caught:
        judge_opinions(judge, answers, tmp_path)
    assert caught.value.found.startswith("0 of 2")


def test_a_key_is_named_and_never_written_in_a_case() -> None:
    """The case holds the name of a variable; what looks like a key itself is refused."""
    with pytest.raises(ValidationError, match="key"):
        LlmJudge(url="https://judge/v1", model="m", key="sk-12ab")
