"""What a response says of its rows beside the predictions: ignored and missing columns, unseen categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from services.serving.schema import Schema
from tasks.train.tabular.categories import Categories, unseen_categories

if TYPE_CHECKING:
    from prometheus_client import Counter

MAX_LISTED = 20  # unseen categories of a column
UNSEEN = ("driftline_unseen_categories", "Values that the training data of a release did not have.", ("column",))


def notes_on(schema: Schema, rows: Sequence[Any]) -> dict[str, list[str]]:
    """The columns that rows have too many, and the features that they lack, where there are any.

    Raises: ValidationError for a row without any feature.
    """
    ignored: set[str] = set()
    missing: set[str] = set()
    for position, row in enumerate(rows):
        present = row.model_fields_set
        ignored |= present & schema.ignored.keys()
        if lacking := schema.in_request.keys() - present:
            if len(lacking) == len(schema.in_request):
                raise _without_feature(position, schema.in_request)
            missing |= lacking
    names = {
        "ignored_columns": [schema.ignored[attribute] for attribute in ignored],
        "missing_columns": [schema.in_request[attribute] for attribute in missing],
    }
    return {note: sorted(columns) for note, columns in names.items() if columns}


def count_unseen(known: Categories, values: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """The unseen categories of each column, which are counted in this process's metrics; of many, the first."""
    unseen = unseen_categories(known, values)
    for column, texts in unseen.items():
        others = set(texts)
        unseen_counter().labels(column).inc(sum(value in others for value in values[column]))
    return {column: texts[:MAX_LISTED] for column, texts in unseen.items()}


@cache
def unseen_counter() -> Counter:
    """The counter of unseen categories; BentoML sets, when it starts, where it counts."""
    from prometheus_client import Counter

    return Counter(*UNSEEN)


def _without_feature(position: int, in_request: Mapping[str, str]) -> ValidationError:
    columns = ", ".join([*in_request.values()][:8])
    problem = PydanticCustomError("no_feature", "The row has no feature, such as {columns}", {"columns": columns})
    details = InitErrorDetails(type=problem, loc=("rows", position), input=None)
    return ValidationError.from_exception_data("Request", [details])
