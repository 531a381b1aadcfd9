"""Models are asked once, on the same terms, and what they answer is kept for a person to read."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.errors import DataError
from tasks.data.config import Answer
from tasks.data.results import GGUF
from tasks.evaluate.language import responses as asking
from tasks.evaluate.language.inference import (
    Scoring,
    baseline_prompt,
    build_conversation,
    few_shot_examples,
    message_in,
    score,
    scores_of,
    stratified_sample,
    wrong_answers,
)
from tasks.evaluate.language.responses import EngineOptions, generate_responses
from tasks.language.answer_scoring import JsonScorer, summarise
from tasks.language.prompts import Prompt
from tasks.train.config import Serving
from tests.language_case import smollm_base
from tests.train.pairs import SCHEMA, SYSTEM, write_pairs

SERVING = Serving(slots=2, answer_tokens=12)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=24, held=24)


def test_equal_requests_are_sent_once(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message gets its own reply, alone or among many; asked the same again, no engine starts."""
    monkeypatch.setattr(asking, "SEQUENTIAL", 2)
    table = pd.read_parquet(pairs / "evaluation.parquet").head(6)
    conversations = [build_conversation(each, Prompt(system=SYSTEM)) for each in table["messages"]]
    model = smollm_base().folder / GGUF
    replies, timing = generate_responses(model, conversations, EngineOptions(SERVING, 256, 1), tmp_path)
    assert len(replies) == len(conversations)
    assert replies["tokens_out"].between(1, 12).all()
    assert min(timing["latency_p50_ms"], timing["seconds_per_answer"]) > 0
    monkeypatch.setattr(asking, "open_engine", None)
    again, again_timing = generate_responses(model, conversations, EngineOptions(SERVING, 256, 1), tmp_path)
    pd.testing.assert_frame_equal(replies, again)
    assert again_timing == timing
    with pytest.raises(TypeError):  # other questions are asked
        generate_responses(model, conversations[:1], EngineOptions(SERVING, 256, 1), tmp_path)
    with monkeypatch.context() as changed:
        changed.setattr("tasks.core.code_digest.code_digest", lambda module: f"other code of {module}")
        with pytest.raises(TypeError):  # the same questions, when the code that asks has changed
            generate_responses(model, conversations, EngineOptions(SERVING, 256, 1), tmp_path)
    (next((tmp_path / "answers").iterdir()) / "timing.json").unlink()
    with pytest.raises(TypeError):  # half of what was kept is not taken for all
        generate_responses(model, conversations, EngineOptions(SERVING, 256, 1), tmp_path)


def test_an_impossible_request_is_refused(tmp_path: Path) -> None:
    """A model that isn't there, and a message beyond the context."""
    with pytest.raises(DataError, match="no model"):
        generate_responses(
            tmp_path / "none.gguf", [[{"role": "user", "content": "Hi"}]], EngineOptions(SERVING, 256, 1), tmp_path
        )
    model = smollm_base().folder / GGUF
    with pytest.raises(DataError, match="can't answer"):
        generate_responses(
            model, [[{"role": "user", "content": "long " * 600}]], EngineOptions(SERVING, 256, 1), tmp_path
        )


def test_the_schema_constrains_even_an_untuned_model(tmp_path: Path, pairs: Path) -> None:
    """Under the schema's constraint every answer follows it, right or not."""
    table = pd.read_parquet(pairs / "evaluation.parquet").head(6)
    schema = {**SCHEMA, "properties": {"function": SCHEMA["properties"]["function"]}}
    conversations = [build_conversation(each, Prompt(system=SYSTEM)) for each in table["messages"]]
    serving = Serving(slots=2, answer_tokens=64)  # enough that none is cut short
    replies, _ = generate_responses(
        smollm_base().folder / GGUF, conversations, EngineOptions(serving, 256, 1), tmp_path, schema
    )
    scored = score(table, replies, Scoring(JsonScorer(schema)), "constrained")
    assert summarise(scores_of(scored))["schema_validity"] == 1.0


def test_conversations_take_system_and_examples() -> None:
    """System first, then examples as turns, then the pair's own messages."""
    conversation = build_conversation('[{"role": "user", "content": "q"}]', Prompt(system="s"), [("a", "b")])
    assert [each["role"] for each in conversation] == ["system", "user", "assistant", "user"]
    assert [each["content"] for each in conversation] == ["s", "a", "b", "q"]
    prompt = Prompt(system="s", baseline="Follow {schema}.")
    assert baseline_prompt(prompt, Answer(json_schema={"type": "object"})).system == 'Follow {"type": "object"}.'


def test_examples_show_each_intent_before_a_second_of_any(pairs: Path) -> None:
    """The same for the same pairs, whatever their order."""
    train = pd.read_parquet(pairs / "train.parquet")
    shown = few_shot_examples(train, 4)
    intents = [train[train["answer"] == answer]["intent"].iat[0] for _, answer in shown]
    assert set(intents[:3]) == set(train["intent"])
    assert few_shot_examples(train.sample(frac=1, random_state=1), 4) == shown
    assert len(few_shot_examples(train, 1000)) == len(train)


def test_a_part_is_spread_over_intents_and_wordings(pairs: Path) -> None:
    """A third of each of three intents, and everything when more is asked for than there is."""
    table = pd.read_parquet(pairs / "evaluation.parquet")
    assert stratified_sample(table, 9)["intent"].value_counts().tolist() == [3, 3, 3]
    assert len(stratified_sample(table, 1000)) == len(table)
    assert (
        stratified_sample(table.sample(frac=1, random_state=1), 9)["pair_id"].tolist()
        == stratified_sample(table, 9)["pair_id"].tolist()
    )


def test_scores_are_read_back_from_the_table(tmp_path: Path, pairs: Path) -> None:
    """What Parquet keeps, nothing stated among it, gives the same figures; the wrong answers can be read."""
    table = pd.read_parquet(pairs / "evaluation.parquet").head(4).assign(unsafe=False)
    texts = [*table["answer"].iloc[:2], "no | <b>JSON</b>\n", '{"function":"find_flight","origin":"XXX"}']
    scorer = JsonScorer(SCHEMA, ("origin", "flight"), {"function": "none"})
    scored = score(table, pd.DataFrame({"text": texts}), Scoring(scorer), "served")
    direct = [
        scorer.score(text, answer, message_in(messages))
        for text, answer, messages in zip(texts, table["answer"], table["messages"], strict=True)
    ]
    scored.to_parquet(tmp_path / "scores.parquet")
    assert scores_of(pd.read_parquet(tmp_path / "scores.parquet")) == direct
    lines = wrong_answers(scored).splitlines()
    assert len(lines) == 2 + 2
    assert "no \\| \\<b>JSON\\</b>" in lines[2]
    assert json.loads(table["messages"].iat[2])[0]["content"] in lines[2]
