"""Measure a language model's answers: by right answers where they are known, and by what needs none.

Nothing is asked of a hub: the embeddings come from a model on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.files import file_digest
from tasks.data.config import Answer
from tasks.data.results import EmbedderFiles, WindowMessages
from tasks.evaluate.language.inference import message_in, scores_of
from tasks.language.answer_scoring import Score, Scorer, summarise
from tasks.language.embedder import Embedder
from tasks.monitor.config import AnswerMonitor, Retrain
from tasks.monitor.drift import measure_drift
from tasks.monitor.language.descriptors import COLUMNS, describe
from tasks.monitor.language.reference_free_metrics import (
    metric_p_value,
    reference_free_p_values,
    reference_free_ratios,
    sum_ratios,
)
from tasks.monitor.language.two_sample_classifier import classifier_two_sample_test
from tasks.monitor.results import Part, Signal
from tasks.monitor.signal import Window, find_signal, fingerprint, sample, store_signal
from tasks.predict.tabular import read_predictions
from tasks.release.config import Price
from tasks.release.seal import SCORES, read_manifest

if TYPE_CHECKING:
    import pandas as pd


def measure_answers(
    window: Window,
    release: Path,
    config: AnswerMonitor,
    embedder: EmbedderFiles,
    asked: WindowMessages,
    predictions: Path,
    state: Path,
) -> Signal:
    """Judge what a release answered to `asked`, beside what it answered in its evaluation.

    `release` holds manifest.json and scores.parquet; `predictions` is the folder that the predict room writes to.
    Report, numbers and signal lie where those of tables do; the same inputs find the signal there.
    Raises: DataError when the window holds no answers.
    """
    import pandas as pd

    said = read_predictions(predictions, window.case, window.release, window.start, window.end)
    known = pd.read_parquet(asked.path, columns=["example_id", "answer"])
    now = said.merge(known, on="example_id")  # others were replayed with other wordings
    inputs = window.inputs(__name__, [config.digest, fingerprint(now), file_digest(release / SCORES), embedder.digest])
    folder = window.folder(state)
    if (before := find_signal(folder, inputs)) is not None:
        return before

    scores = pd.read_parquet(release / SCORES)
    then = scores[(scores["variant"] == "served") & ~scores["unsafe"]].rename(columns={"text": "prediction"})
    sealed = read_manifest(release)["sealed"]
    answer, price = Answer.model_validate(sealed["answer"]), Price.model_validate(sealed.get("price", {}))
    scorer = Scorer(answer.json_schema, answer.stated, answer.abstain)
    missing: list[str] = []
    known_now = now[now["answer"].notna()]
    found, right_then = _scored(known_now, scorer), scores_of(then)
    if not found:
        missing.append("No right answer has arrived: only what needs none was measured.")
    sample_then, sample_now = (sample(side, config.sample) for side in (then, now))
    drift = measure_drift(describe(sample_then, answer), describe(sample_now, answer), COLUMNS, folder, "text")
    messages_then, messages_now = (
        [message_in(each) for each in side["messages"]] for side in (sample_then, sample_now)
    )
    opened = Embedder(embedder.folder)
    apart = classifier_two_sample_test(opened.encode(messages_then), opened.encode(messages_now))
    if apart is None:
        missing.append(f"Drift of the messages was not computed: {len(now):,} now, {len(then):,} then.")
    proxies, proxies_then = (reference_free_ratios(side, scorer, price) for side in (now, then))
    chances: dict[str, float | None] = reference_free_p_values(proxies_then, proxies)
    if len(known_now) >= config.min_rows:
        chances["performance"] = metric_p_value(right_then, found, config.retrain.metric)
    chances["prediction"] = drift.prediction_chance if drift.prediction is not None else None
    chances["messages"] = apart and apart[1]
    measured = {
        "task": "answers",
        "rows": len(now),
        "rows_with_outcome": len(known_now),
        "metrics": summarise(found),
        "reference": summarise(right_then),
        "reference_rows": len(then),
        "bias": None,
        "parts": _parts(known_now, found, window, config.retrain),
        "columns": drift.columns,
        "prediction_drift": drift.prediction,
        "proxies": sum_ratios(proxies),
        "proxies_then": sum_ratios(proxies_then),
        "told_apart": apart and apart[0],
        "not_computed": tuple(missing),
        "inputs": inputs,
    }
    return store_signal(window, folder, measured, known_now, chances, config)


def _scored(rows: pd.DataFrame, scorer: Scorer) -> list[Score]:
    """What computation says of answers beside the right ones."""
    told = zip(rows["prediction"], rows["answer"], rows["messages"], strict=True)
    return [scorer.score(text, right, message_in(messages)) for text, right, messages in told]


def _parts(rows: pd.DataFrame, found: Sequence[Score], window: Window, config: Retrain) -> tuple[Part, ...]:
    """The watched metric in each part of the window."""
    made, times = [], list(rows["event_timestamp"])
    for start, end in window.parts(config.of):
        some_of_them = [score for score, time in zip(found, times, strict=True) if start <= time < end]
        value = summarise(some_of_them).get(config.metric)
        made.append(Part(start=start, end=end, rows=len(some_of_them), value=value, expected=None, bias=None))
    return tuple(made)
