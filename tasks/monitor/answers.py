"""Measure a language model's answers: by right answers where they are known, and by what needs none.

Nothing is asked of a hub: descriptors are Evidently's that work offline, the language is told by py3langid, and the
embeddings come from a model on this machine.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.config import Answer
from tasks.data.results import Asked, EmbedderFiles
from tasks.evaluate.answering import message_in, scores_of
from tasks.features.results import Column
from tasks.foundation.embedder import Embedder
from tasks.foundation.files import file_digest
from tasks.monitor.apart import told_apart
from tasks.monitor.config import AnswerMonitor
from tasks.monitor.drift import measure_drift
from tasks.monitor.measure import Window, fingerprint, keep, measured_before, some
from tasks.monitor.results import Signal
from tasks.predict.batch import read_predictions
from tasks.release.config import NANO, Price
from tasks.release.seal import SCORES, read_manifest
from tasks.train.answers import Scorer, summarise

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2  # of what is measured here: raise it when the same inputs give another signal
PROXIES = ("json_validity", "schema_validity", "hallucination_rate", "repetition_rate")  # need no right answer
NUMBERS = ("message length", "message words", "message sentences", "message symbols", "answer length")
COLUMNS = (
    *(Column(name=name, kind="number", origin="message") for name in NUMBERS),
    Column(name="language", kind="text", origin="message"),
)


def measure_answers(
    window: Window,
    release: Path,
    config: AnswerMonitor,
    embedder: EmbedderFiles,
    asked: Asked,
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
    inputs = window.inputs(
        [config.digest, fingerprint(now), file_digest(release / SCORES), embedder.digest, VERSION, *_tools()]
    )
    folder = window.folder(state)
    if (before := measured_before(folder, inputs)) is not None:
        return before

    scores = pd.read_parquet(release / SCORES)
    then = scores[(scores["variant"] == "served") & ~scores["unsafe"]].rename(columns={"text": "prediction"})
    sealed = read_manifest(release)["sealed"]
    answer, price = Answer.model_validate(sealed["answer"]), Price.model_validate(sealed.get("price", {}))
    scorer = Scorer(answer.json_schema, answer.stated, answer.abstain)
    missing: list[str] = []
    known_now = now[now["answer"].notna()]
    found = _scored(known_now, scorer) if len(known_now) else {}
    if not found:
        missing.append("No right answer has arrived: only what needs none was measured.")
    sample_then, sample_now = (some(side, config.sample) for side in (then, now))
    drift = measure_drift(
        _described(sample_then, answer), _described(sample_now, answer), COLUMNS, folder, prediction="text"
    )
    missing += [
        f"Drift of {each.column} was not computed: {each.note or 'the distance is not finite'}."
        for each in drift.columns
        if each.drifted is None
    ]
    messages_then, messages_now = (
        [message_in(each) for each in side["messages"]] for side in (sample_then, sample_now)
    )
    opened = Embedder(embedder.folder)
    apart = told_apart(opened.vectors(messages_then), opened.vectors(messages_now))
    if apart is None:
        missing.append(f"Drift of the messages was not computed: {len(now):,} now, {len(then):,} then.")
    return keep(
        window,
        folder,
        {
            "task": "answers",
            "rows": len(now),
            "rows_with_outcome": len(known_now),
            "metrics": found,
            "reference": summarise(scores_of(then)),
            "reference_rows": len(then),
            "bias": None,
            "columns": drift.columns,
            "drifted_share": drift.share,
            "prediction_drift": drift.prediction,
            "prediction_chance": drift.prediction_chance,
            "proxies": _proxies(now, scorer, price),
            "proxies_then": _proxies(then, scorer, price),
            "told_apart": apart and apart[0],
            "told_apart_chance": apart and apart[1],
            "not_computed": tuple(missing),
            "inputs": inputs,
        },
    )


def _tools() -> list[str]:
    from importlib.metadata import version

    return [version(name) for name in ("evidently", "py3langid")]


def _scored(rows: pd.DataFrame, scorer: Scorer) -> dict[str, float]:
    """All metrics of answers beside the right ones."""
    told = zip(rows["prediction"], rows["answer"], rows["messages"], strict=True)
    return summarise(scorer.score(text, right, message_in(messages)) for text, right, messages in told)


def _proxies(rows: pd.DataFrame, scorer: Scorer, price: Price) -> dict[str, float]:
    """What answers tell without the right ones: whether they hold to form and message, how often they abstain, cost."""
    told = zip(rows["prediction"], rows["messages"], strict=True)
    scores = [scorer.score(text, text, message_in(messages)) for text, messages in told]
    found = {name: value for name, value in summarise(scores).items() if name in PROXIES}
    found["abstention_share"] = sum(score.abstained for score in scores) / len(scores)
    found["answer_tokens"] = float(rows["tokens_out"].mean())
    used = zip(rows["tokens_in"], rows["tokens_out"], rows["seconds"], strict=True)
    spent = sum(price.of(int(read), 0, int(written), seconds) for read, written, seconds in used)
    found["cost_per_1k_answers"] = 1000 * spent / NANO / len(rows)
    return {name: round(value, 6) for name, value in found.items()}


def _described(rows: pd.DataFrame, answer: Answer) -> pd.DataFrame:
    """Descriptors of messages and answers: the columns that drift is looked for in."""
    import pandas as pd
    import py3langid
    from evidently import DataDefinition, Dataset
    from evidently.descriptors import NonLetterCharacterPercentage, SentenceCount, TextLength, WordCount

    texts = pd.DataFrame(
        {"message": [message_in(each) for each in rows["messages"]], "prediction": rows["prediction"].to_numpy()}
    )
    counts = {"message length": TextLength, "message words": WordCount, "message sentences": SentenceCount}
    described = [kind("message", alias=name) for name, kind in counts.items()]
    described.append(NonLetterCharacterPercentage("message", alias="message symbols"))
    described.append(TextLength("prediction", alias="answer length"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas about what Evidently does inside
        dataset = Dataset.from_pandas(
            texts, data_definition=DataDefinition(text_columns=["message", "prediction"]), descriptors=described
        )
    frame = dataset.as_dataframe()[list(NUMBERS)]
    return frame.assign(
        language=[py3langid.classify(text)[0] for text in texts["message"]],
        prediction=[_form(text, answer.stated) for text in texts["prediction"]],
    )


def _form(text: str, stated: tuple[str, ...]) -> str:
    """An answer without what it took from the message: which kind of answer it is."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return "no JSON"
    return json.dumps(_without(value, stated), sort_keys=True)


def _without(value: Any, stated: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: "..." if key in stated else _without(inner, stated) for key, inner in value.items()}
    return [_without(inner, stated) for inner in value] if isinstance(value, list) else value
