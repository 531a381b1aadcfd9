"""What monitoring measures of a language model's answers, with real embeddings on messages of a known kind."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.core.mlflow import Tracking
from tasks.core.places import Places
from tasks.data.language.embedder_files import find_embedder
from tasks.data.results import EmbedderFiles, WindowMessages
from tasks.evaluate.custom_scorer import CustomScorer
from tasks.evaluate.language.inference import Scoring, score
from tasks.language.answer_scoring import JsonScorer
from tasks.language.messages import USER, chat_message
from tasks.monitor.config import AnswerMonitor, AnswerRetrain, check_monitor
from tasks.monitor.decide import decide
from tasks.monitor.language.measure import measure_answers
from tasks.monitor.results import Attempt, Decision, Signal
from tasks.monitor.signal import Window, WindowData

RELEASE = "cd" * 32
START, END = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC)
WINDOW = Window("library", RELEASE, END, START, END)
CONFIG = AnswerMonitor.model_validate({"retrain": {"metric": "exact_match", "worse_by": 0.05}, "min_rows": 100})
SCHEMA = {"type": "object", "properties": {"call": {"enum": ["renew", "none"]}, "book": {"type": "string"}}}
USED = ["tokens_in", "tokens_out", "seconds"]
PRICE = {"tokens_in": 1.0, "tokens_out": 4.0, "machine_hour": 0.36}
WORDINGS = {
    "renew": ("Extend my loan of {}.", "More time with {}, please.", "I want to keep {} for another week."),
    "none": ("Where can I park today?", "What is {} about?", "When does the library open on {}?"),
    "spanish": ("¿Puedo prolongar el préstamo del libro {}?", "Quisiera quedarme {} una semana más, por favor."),
}


def answered_rows(
    count: int, seed: int, kinds: tuple[str, ...] = ("renew", "none"), wrong: float = 0.04
) -> pd.DataFrame:
    """Messages with right answers and what a model said, a share of which is wrong."""
    chance = random.Random(seed)
    rows = []
    for place in range(count):
        kind, book = chance.choice(kinds), f"{chance.choice('ABCDEF')}{chance.randrange(100)}"
        right = json.dumps({"call": "none"} if kind == "none" else {"call": "renew", "book": book})
        text = json.dumps({"call": "renew", "book": "Z1"}) if chance.random() < wrong else right
        message = chance.choice(WORDINGS[kind]).format(book)
        rows.append(
            {"pair_id": f"{seed}-{place}", "messages": json.dumps([chat_message(USER, message)]), "answer": right}
        )
        rows[-1] |= {"text": text, "template": kind, "intent": kind, "unsafe": False}
    return pd.DataFrame(rows).assign(tokens_in=40, tokens_out=20, seconds=1.0)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release's folder as far as monitoring reads it."""
    folder = tmp_path_factory.mktemp("release")
    rows = answered_rows(200, 1)
    scored = score(
        rows.drop(columns=["text", *USED]), rows[["text", *USED]], Scoring(JsonScorer(SCHEMA, ("book",))), "served"
    )
    scored.to_parquet(folder / "scores.parquet")
    answer = {"json_schema": SCHEMA, "abstain": {"call": "none"}, "stated": ["book"]}
    (folder / "manifest.json").write_text(json.dumps({"sealed": {"answer": answer, "price": PRICE}}))
    return folder


def places_in(folder: Path) -> Places:
    return Places(folder / "state", Tracking.in_folder(folder / "state"), folder)


def watch(
    rows: pd.DataFrame,
    release: Path,
    place: Path,
    known: bool = True,
    config: AnswerMonitor = CONFIG,
    scorers: Mapping[str, str] | None = None,
) -> tuple[Signal, Decision]:
    """Measure and decide on what was answered in June."""
    rows = rows.assign(
        example_id=rows["pair_id"],
        event_timestamp=pd.date_range(START, END, periods=len(rows) + 1)[:-1].as_unit("us"),
    )
    folder = place / "predictions" / "library" / f"release={RELEASE[:12]}" / "month=2024-06"
    folder.mkdir(parents=True, exist_ok=True)
    answered = rows.rename(columns={"text": "prediction"})
    answered[["example_id", "event_timestamp", "messages", "prediction", *USED]].to_parquet(folder / "part-1.parquet")
    table = rows[["example_id", "event_timestamp", "messages", "answer"]]
    (table if known else table.assign(answer=None)).to_parquet(place / "asked.parquet")
    path = place / "asked.parquet"
    messages = WindowMessages(path=path, rows=len(rows), start=START, end=END, digest=file_digest(path))
    signal = measure_answers(
        release,
        config,
        find_embedder(config.embedder, place),
        WINDOW,
        WindowData(messages.path, scorers=scorers or {}),
        places_in(place),
    )
    return signal, decide(signal, config)


def test_a_month_like_the_evaluation_is_ignored(release: Path, tmp_path: Path) -> None:
    """Nothing has changed: nothing is done, all of it was looked at, and measuring again finds the same."""
    signal, decision = watch(answered_rows(150, 2), release, tmp_path)
    assert decision.action == "ignore"
    assert (signal.task, signal.rows, signal.rows_with_outcome, signal.reference_rows) == ("answers", 150, 150, 200)
    assert signal.not_computed == ()
    assert signal.metrics["exact_match"] == pytest.approx(0.96, abs=0.03)
    assert signal.message_auc == pytest.approx(0.5, abs=0.1)
    assert {column.column for column in signal.columns} >= {"message length", "answer length", "language"}
    assert signal.drift_report.is_file()
    assert watch(answered_rows(150, 2), release, tmp_path) == (signal, decision)


def test_wrong_answers_retrain(release: Path, tmp_path: Path) -> None:
    """Messages as ever, answers often wrong: the right answers tell, and that decides."""
    signal, decision = watch(answered_rows(150, 3, wrong=0.3), release, tmp_path)
    assert decision.action == "retrain"
    assert decision.reasons[0].startswith("exact_match is 0.")
    assert "(p 0.0" in decision.reasons[0]
    assert decision.evidence == signal.evidence
    again = decide(signal, CONFIG, [Attempt(decision=decision, outcome="rejected")])
    assert again.action == "alert"
    assert again.reasons[0].startswith("This evidence was acted on")


def test_an_own_scorer_is_watched(tmp_path: Path) -> None:
    """Answers that grow longer than the case's scorer allows retrain, though they stay right."""
    source = "def brief(message, answer, reference, required_facts):\n    return len(answer) < 60\n"
    code = f"scorers.py:brief\n{source}"
    custom = {"brief": CustomScorer.of(code).load()}
    rows = answered_rows(200, 1, wrong=0)
    scoring = Scoring(JsonScorer(SCHEMA, ("book",)), custom)
    score(rows.drop(columns=["text", *USED]), rows[["text", *USED]], scoring, "served").to_parquet(
        tmp_path / "scores.parquet"
    )
    answer = {"json_schema": SCHEMA, "abstain": {"call": "none"}, "stated": ["book"]}
    (tmp_path / "manifest.json").write_text(json.dumps({"sealed": {"answer": answer, "price": PRICE}}))
    config = CONFIG.model_copy(update={"retrain": AnswerRetrain(metric="scorers.brief", worse_by=0.05)})
    check_monitor(config, "answers", scorers=["brief"])
    long = answered_rows(150, 3, wrong=0)
    long["text"] = [text.replace("{", "{" + 60 * " ") if at % 3 == 0 else text for at, text in enumerate(long["text"])]
    signal, decision = watch(long, tmp_path, tmp_path, config=config, scorers={"brief": code})
    assert signal.metrics["scorers.brief"] == pytest.approx(2 / 3)
    assert signal.metrics["exact_match"] == 1.0
    assert decision.action == "retrain"
    with pytest.raises(CaseError, match="is no metric of this task"):
        check_monitor(config, "answers")


def test_one_bad_week_of_answers_retrains_nothing(release: Path, tmp_path: Path) -> None:
    """A month that is bad for a quarter of its time, all of it at the end: one part of four, two are needed."""
    config = CONFIG.model_copy(update={"retrain": CONFIG.retrain.model_copy(update={"needs": 2, "of": 4})})
    rows = pd.concat([answered_rows(120, 9), answered_rows(40, 10, wrong=0.9)])
    signal, decision = watch(rows, release, tmp_path, config=config)
    assert signal.metrics["exact_match"] < signal.reference["exact_match"] - 0.05
    assert [part.rows for part in signal.parts] == [40] * 4
    assert decision.action == "alert"
    assert "so in 1 of 4 parts of the window, 2 are needed" in " ".join(decision.reasons)


def test_other_messages_answered_as_well_never_retrain(release: Path, tmp_path: Path) -> None:
    """Harmless drift of messages: another mix of what is asked, answered as rightly as ever."""
    signal, decision = watch(answered_rows(150, 11, ("renew", "spanish", "spanish")), release, tmp_path)
    assert signal.message_auc > 0.75
    assert decision.action == "alert"


def test_another_language_alerts_before_any_right_answer_is_known(release: Path, tmp_path: Path) -> None:
    """Embeddings and language differ; without outcomes that alerts, and says that performance is not known."""
    rows = pd.concat([answered_rows(75, 4), answered_rows(75, 5, ("spanish",))])
    signal, decision = watch(rows, release, tmp_path, known=False)
    assert signal.metrics == {}
    assert signal.rows_with_outcome == 0
    assert decision.action == "alert"
    assert any("Insufficient evidence" in reason for reason in decision.reasons)
    assert any("AUC of a classifier between the messages" in reason for reason in decision.reasons)
    assert signal.message_auc > 0.75
    assert next(each for each in signal.columns if each.column == "language").drifted


def test_invented_values_alert_without_right_answers(release: Path, tmp_path: Path) -> None:
    """A value that no message contains needs no right answer to be seen."""
    signal, decision = watch(answered_rows(150, 6, wrong=0.3), release, tmp_path, known=False)
    assert signal.reference_free["hallucination_rate"] > signal.reference_free_then["hallucination_rate"] + 0.1
    assert decision.action == "alert"
    assert any("hallucination_rate of all answers" in reason for reason in decision.reasons)


def test_dearer_answers_and_more_abstentions_alert(release: Path, tmp_path: Path) -> None:
    """Twice the tokens cost more by the release's own price; more messages that it gives no answer to are told, too."""
    rows = answered_rows(150, 7).assign(tokens_out=40)
    signal, decision = watch(rows, release, tmp_path / "dear")
    assert signal.reference_free["cost_per_1k_answers"] == pytest.approx(1000 * ((40 + 160) / 1e6 + 0.0001))
    assert signal.reference_free_then["cost_per_1k_answers"] == pytest.approx(1000 * ((40 + 80) / 1e6 + 0.0001))
    assert decision.action == "alert"
    assert decision.reasons[0].startswith(
        "answer_tokens of all answers is 40.000 against 20.000, allowed 50% more (p 0."
    )
    signal, decision = watch(answered_rows(150, 8, ("renew", "none", "none", "none")), release, tmp_path / "silent")
    assert signal.reference_free["abstention_share"] > signal.reference_free_then["abstention_share"] + 0.15
    assert any(reason.startswith("abstention_share of all answers is 0.7") for reason in decision.reasons)


def test_a_window_without_answers_is_refused(release: Path, tmp_path: Path) -> None:
    """Nothing was predicted: the error says what to run."""
    messages = WindowMessages(path=tmp_path / "none.parquet", rows=0, start=None, end=None, digest="")
    unread = EmbedderFiles(digest="", folder=tmp_path, files={})
    with pytest.raises(DataError, match="no predictions in this window"):
        measure_answers(release, CONFIG, unread, WINDOW, WindowData(messages.path), places_in(tmp_path))
