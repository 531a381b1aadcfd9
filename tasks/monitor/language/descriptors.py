"""Descriptors of messages and answers, as columns for drift: Evidently's text descriptors, language, kind of answer.

All of them work offline; py3langid detects the language.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.data.config import Answer
from tasks.evaluate.language.inference import message_in
from tasks.features.results import Column
from tasks.language.answer_scoring import is_refusal

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("message length", "message words", "message sentences", "message symbols", "answer length")
COLUMNS = (
    *(Column(name=name, kind="number", origin="message") for name in NUMBERS),
    Column(name="language", kind="text", origin="message"),
)


def describe(rows: pd.DataFrame, answer: Answer) -> pd.DataFrame:
    """The descriptors of messages and answers, a row an answer."""
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
        warnings.simplefilter("ignore")  # pandas warnings from inside Evidently
        dataset = Dataset.from_pandas(
            texts, data_definition=DataDefinition(text_columns=["message", "prediction"]), descriptors=described
        )
    frame: pd.DataFrame = dataset.as_dataframe()[list(NUMBERS)]
    return frame.assign(
        language=[py3langid.classify(text)[0] for text in texts["message"]],
        prediction=[_kind(text, answer) for text in texts["prediction"]],
    )


def _kind(text: str, answer: Answer) -> str:
    """The kind of answer: JSON without the values that it took from the message; of prose, whether it is a refusal."""
    if answer.format == "text":
        return "refusal" if is_refusal(text) else "answer"
    stated = answer.stated
    try:
        value: Any = json.loads(text)
    except ValueError:
        return "no JSON"
    return json.dumps(_without(value, stated), sort_keys=True)


def _without(value: Any, stated: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: "..." if key in stated else _without(inner, stated) for key, inner in value.items()}
    return [_without(inner, stated) for inner in value] if isinstance(value, list) else value
