"""Measure a language model's answers: by right answers where they are known, and by reference-free metrics.

The embeddings come from a local model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.files import file_digest
from tasks.core.places import Places
from tasks.data.config import Answer
from tasks.data.language.scorer import scorer_of
from tasks.data.results import EmbedderFiles
from tasks.evaluate.custom_scorer import CustomFunction, CustomScorer
from tasks.evaluate.language.inference import message_in, scores_of
from tasks.language.answer_scoring import Score, Scorer, summarise
from tasks.language.embedder import Embedder
from tasks.monitor.config import AnswerMonitor, Retrain
from tasks.monitor.data_quality import snapshot_quality
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
from tasks.monitor.signal import Window, WindowData, find_signal, fingerprint, sample, store_signal
from tasks.predict.tabular import read_predictions
from tasks.release.config import Price
from tasks.release.seal import SCORES, read_manifest

if TYPE_CHECKING:
    import pandas as pd


def measure_answers(
    release: Path,
    config: AnswerMonitor,
    embedder: EmbedderFiles,
    window: Window,
    data: WindowData,
    places: Places,
) -> Signal:
    """Measure the answers of a window to its messages, beside the answers of the release's evaluation.

    `release` is a folder with manifest.json and scores.parquet. Report, numbers and signal lie where those of tabular
    cases do; equal inputs return the stored signal.

    Raises: NothingYet when the window holds no answers.
    """
    import pandas as pd

    predictions = read_predictions(places.predictions, window.case, window.release, window.start, window.end)
    right_answers = pd.read_parquet(data.path, columns=["example_id", "answer"])
    now = predictions.merge(right_answers, on="example_id")  # the others are predictions of other templates
    quality = snapshot_quality(data.snapshot) if data.snapshot else ()
    inputs = window.inputs(
        __name__,
        [
            config.digest,
            fingerprint(now),
            file_digest(release / SCORES),
            embedder.digest,
            [batch.model_dump() for batch in quality],
            data.upstream.model_dump() if data.upstream else None,
            dict(data.scorers),
        ],
    )
    folder = window.folder(places.state)
    if (stored := find_signal(folder, inputs)) is not None:
        return stored

    scores = pd.read_parquet(release / SCORES)
    then = scores[(scores["variant"] == "served") & ~scores["unsafe"]].rename(columns={"text": "prediction"})
    sealed = read_manifest(release)["sealed"]
    answer, price = Answer.model_validate(sealed["answer"]), Price.model_validate(sealed.get("price", {}))
    scorer = scorer_of(answer)
    missing: list[str] = []
    known = now[now["answer"].notna()]
    custom = {name: CustomScorer.of(code).load() for name, code in data.scorers.items()}
    scores_now, scores_then = _scored(known, scorer, custom), scores_of(then)
    if not scores_now:
        missing.append("No right answer has arrived: only what needs none was measured.")
    samples = [sample(side, config.sample) for side in (then, now)]
    described = [describe(side, answer) for side in samples]
    drift = measure_drift(described[0], described[1], COLUMNS, folder, "text")
    model = Embedder(embedder.folder, embedder.tokenizer)
    vectors = [model.encode([message_in(each) for each in side["messages"]]) for side in samples]
    auc, auc_p_value = classifier_two_sample_test(*vectors) or (None, None)
    if auc is None:
        missing.append(f"Drift of the messages was not computed: {len(now):,} now, {len(then):,} then.")
    ratios, ratios_then = (reference_free_ratios(side, scorer, price) for side in (now, then))
    p_values: dict[str, float | None] = reference_free_p_values(ratios_then, ratios)
    if len(known) >= config.min_rows:
        p_values["performance"] = metric_p_value(scores_then, scores_now, config.retrain.metric)
    p_values["prediction"] = drift.prediction_p_value if drift.prediction is not None else None
    p_values["messages"] = auc_p_value
    measured = {
        "task": "answers",
        "rows": len(now),
        "rows_with_outcome": len(known),
        "metrics": summarise(scores_now),
        "reference": summarise(scores_then),
        "reference_rows": len(then),
        "bias": None,
        "parts": _parts(known, scores_now, window, config.retrain),
        "columns": drift.columns,
        "quality": quality,
        "prediction_drift": drift.prediction,
        "prediction_note": drift.prediction_note,
        "reference_free": sum_ratios(ratios),
        "reference_free_then": sum_ratios(ratios_then),
        "message_auc": auc,
        "upstream": data.upstream,
        "not_computed": tuple(missing),
        "inputs": inputs,
    }
    return store_signal(window, folder, measured, known, p_values, config)


def _scored(rows: pd.DataFrame, scorer: Scorer, custom: Mapping[str, CustomFunction]) -> list[Score]:
    """The scores of answers whose right ones are known, also by the case's own scorers."""
    scores = []
    for text, right, messages in zip(rows["prediction"], rows["answer"], rows["messages"], strict=True):
        message = message_in(messages)
        own = {name: function(message, text, right, []) for name, function in custom.items()}
        scores.append(replace(scorer.score(text, right, message), custom=own or None))
    return scores


def _parts(rows: pd.DataFrame, scores: Sequence[Score], window: Window, config: Retrain) -> tuple[Part, ...]:
    """The watched metric in each part of the window."""
    parts, times = [], list(rows["event_timestamp"])
    for start, end in window.parts(config.of):
        inside = [score for score, time in zip(scores, times, strict=True) if start <= time < end]
        value = summarise(inside).get(config.metric)
        parts.append(Part(start=start, end=end, rows=len(inside), value=value, expected=None, bias=None))
    return tuple(parts)
