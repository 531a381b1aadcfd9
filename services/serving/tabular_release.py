"""A tabular release as its service reads it: typed rows in, predictions and the release's digest out."""

from __future__ import annotations

import json
import os
import timeit
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import to_thread
from pydantic import ValidationError

from services.serving.fast_rows import EXAMPLE_ID, Rows, row_reader
from services.serving.notes import count_unseen, notes_on
from services.serving.schema import ReleaseAnswer, Schema, format_prediction, make_schema
from tasks.core.errors import DriftlineError, InputError, Unavailable
from tasks.train.classes import matches_label
from tasks.train.tabular.categories import Categories, known_categories

if TYPE_CHECKING:
    from starlette.responses import Response

# Environment variables that name the online store, where features that a request leaves out are looked up.
ONLINE_REPOSITORY = "DRIFTLINE_ONLINE_REPO"  # folder that materialise() returned; empty: no lookup
ONLINE_STORE = "DRIFTLINE_ONLINE_STORE"  # the platform's setting
ONLINE_MOMENT = "DRIFTLINE_ONLINE_MOMENT"  # ISO; the as-of of lookups, for replays; empty: now
INLINE_SECONDS = 0.01  # scoring that takes longer goes to a thread, which competes with the server for the interpreter
PROBE_ROWS = 64  # whose scoring is timed when a release starts
MAX_PROBLEMS = 20

T = TypeVar("T")
# from the join keys of rows to the features of all views
FeatureLookup = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]


class TabularRelease:
    """What a release's folder holds: its types, its golden examples and its model."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sealed = manifest["sealed"]
        self.golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
        self.schema = make_schema(manifest, self.golden)
        self.info = ReleaseAnswer(release=manifest["digest"], case=sealed["case"], as_of=sealed["as_of"])
        self._reader = row_reader(sealed)
        self.folder, self._path = folder, folder / "model.skops"
        self._model: Any = None
        self._look_up: FeatureLookup | None = None
        self._categories: Categories = {}
        self._inline_rows = 1  # most rows that are scored without a thread

    def open(self) -> None:
        """Load the model, which must answer the golden examples as it did when it was sealed.

        Raises: DriftlineError.
        """
        from tasks.train.tabular.model_file import load

        model = load(self._path)
        rows = check_golden(model, self.schema, self.golden)
        self._inline_rows = int(INLINE_SECONDS / _seconds_a_row(model, self.schema, rows))
        self._look_up = online_features() if self.schema.views else None
        self._categories = known_categories(model)
        self._model = model

    async def respond(self, body: bytes) -> Response:
        """The response to the body of a prediction request."""
        try:
            if complete := self._reader and self._reader.read(body):
                answer = await _inline_or_thread(self._predict, complete, wait=len(complete.ids) > self._inline_rows)
            else:
                rows = self.schema.request.model_validate_json(body or b"{}").rows  # type: ignore[attr-defined]
                waits = len(rows) > self._inline_rows or needs_lookup(self.schema, rows)
                answer = await _inline_or_thread(self._predict_validated, rows, wait=waits)
        except (ValidationError, InputError) as error:
            return json_response(error_body(error, self.schema), 400)
        except Unavailable as error:
            return json_response({"error": error.what}, 503)
        return json_response({"release": self.info.release, **answer})

    def _predict_validated(self, rows: Sequence[Any]) -> dict[str, Any]:
        notes = notes_on(self.schema, rows)
        values = read_values(self.schema, rows, self._look_up)
        return {**self._predict(Rows(values, ids_of(self.schema, rows))), **notes}

    def _predict(self, rows: Rows) -> dict[str, Any]:
        answer: dict[str, Any] = {"predictions": predict_values(self._model, self.schema, rows)}
        if unseen := count_unseen(self._categories, rows.values):
            answer["unseen_categories"] = unseen
        return answer


async def _inline_or_thread(work: Callable[[T], dict[str, Any]], rows: T, *, wait: bool) -> dict[str, Any]:
    return await to_thread.run_sync(work, rows) if wait else work(rows)


def json_response(value: Any, status: int = 200) -> Response:
    import orjson
    from starlette.responses import Response

    return Response(orjson.dumps(value), status, media_type="application/json")


def _seconds_a_row(model: Any, schema: Schema, rows: Sequence[Any]) -> float:
    """What a row costs in company: the fastest of a few tries, since a busy machine only adds to it."""
    many = [rows[number % len(rows)] for number in range(PROBE_ROWS)]
    probe = Rows(read_values(schema, many, None), ids_of(schema, many))
    return min(timeit.repeat(lambda: predict_values(model, schema, probe), repeat=3, number=1)) / PROBE_ROWS


def check_golden(model: Any, schema: Schema, golden: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
    """Refuse to serve a model whose predictions differ from those at sealing; return the golden rows.

    They differ with other libraries, or on another machine. Raises: DriftlineError.
    """
    rows: Sequence[Any] = schema.request.model_validate({"rows": [each["features"] for each in golden]}).rows  # type: ignore[attr-defined]
    for prediction, example in zip(predict_rows(model, schema, rows), golden, strict=True):
        if not matches_label(prediction, example["prediction"]):
            raise DriftlineError(
                "The model's predictions differ from those at sealing.",
                where=f"example {example['example_id']}",
                found=json.dumps(prediction),
                allowed=str(example["prediction"]),
                todo="Serve it with the locked versions of its libraries, or release it again.",
            )
    return rows


def error_body(error: ValidationError | InputError, schema: Schema) -> dict[str, Any]:
    """The body of a 400 response: each invalid place and what is wrong there."""
    if isinstance(error, InputError):
        return {"error": error.what, "detail": [{"loc": ["rows"], "msg": error.found or error.what}]}
    problems: dict[tuple[int | str, ...], Any] = {}
    tried = error.errors(include_url=False, include_input=False, include_context=False)
    for problem in sorted(tried, key=lambda each: each["type"] == "literal_error"):  # last: the words for a gap
        place = problem["loc"][:3]  # the rest names the types that were tried
        if problem["type"] == "extra_forbidden" and len(place) == 3:
            near = get_close_matches(str(place[2]), schema.attributes, 1)
            problem["msg"] += f"; did you mean {near[0]}?" if near else ": the source has no such column"
        problems.setdefault(place, {**problem, "loc": place})
    return {"error": f"Problems in the request: {len(problems)}.", "detail": [*problems.values()][:MAX_PROBLEMS]}


def predict_rows(
    model: Any, schema: Schema, rows: Sequence[Any], look_up: FeatureLookup | None = None
) -> list[dict[str, Any]]:
    """Score validated rows, one answer each.

    Raises: ValidationError, naming row and column, where features are missing and can't be looked up.
    """
    return predict_values(model, schema, Rows(read_values(schema, rows, look_up), ids_of(schema, rows)))


def read_values(schema: Schema, rows: Sequence[Any], look_up: FeatureLookup | None) -> dict[str, list[Any]]:
    """The features of validated rows, by column. Raises: ValidationError, as `predict_rows`."""
    names = schema.attributes
    values = {column: [getattr(row, names[column]) for row in rows] for column in schema.columns}
    if needs_lookup(schema, rows):
        fill_features(schema, rows, values, look_up)
    return values


def ids_of(schema: Schema, rows: Sequence[Any]) -> list[str | None]:
    identity = schema.attributes[EXAMPLE_ID]
    return [getattr(row, identity) for row in rows]


def predict_values(model: Any, schema: Schema, rows: Rows) -> list[dict[str, Any]]:
    """Score the features of rows, one answer each. Raises: DriftlineError for a prediction that is no number."""
    import numpy as np

    from tasks.train.tabular.model_file import predict

    predicted = predict(model, rows.values)
    if not np.isfinite(predicted).all():
        raise DriftlineError(
            "The model predicts no number.",
            found="NaN or infinity",
            todo="Train on targets without extreme values, or import another model.",
        )
    return [
        format_prediction(example_id, prediction, schema.classes)
        for example_id, prediction in zip(rows.ids, predicted.tolist(), strict=True)
    ]


def needs_lookup(schema: Schema, rows: Sequence[Any]) -> bool:
    features = {schema.attributes[name] for _, names in schema.views.values() for name in names}
    return any(not features <= row.model_fields_set for row in rows)


def fill_features(
    schema: Schema, rows: Sequence[Any], values: Mapping[str, list[Any]], look_up: FeatureLookup | None
) -> None:
    """Put the features of views that rows leave out into `values`, looked up by the views' join keys."""
    names = schema.attributes
    requested: dict[int, list[str]] = {}  # position of a row -> features to look up
    problems: list[tuple[int, str, str]] = []
    for position, row in enumerate(rows):
        for view, (keys, features) in schema.views.items():
            absent = [name for name in features if names[name] not in row.model_fields_set]
            if absent and look_up is None:
                reason = "is missing, and this service has no online store to look it up in"
                problems += [(position, name, reason) for name in absent]
            elif absent and len(absent) < len(features):
                problems += [(position, name, f"is missing; give all features of {view} or none") for name in absent]
            elif absent:
                nulls = [key for key in keys if getattr(row, names[key]) is None]
                problems += [(position, key, f"is needed to look up the features of {view}") for key in nulls]
                requested.setdefault(position, []).extend(features)
    if problems or look_up is None:
        raise _missing(problems)
    keys_of_all = sorted({key for keys, _ in schema.views.values() for key in keys})
    entities = [{key: getattr(rows[position], names[key]) for key in keys_of_all} for position in requested]
    for (position, missing), looked_up in zip(requested.items(), look_up(entities), strict=True):
        for name in missing:
            values[name][position] = looked_up[name]


def online_features() -> FeatureLookup | None:
    """The lookup in the online store that the environment names; None when it names none.

    Raises: DriftlineError when it can't be opened.
    """
    repository = os.environ.get(ONLINE_REPOSITORY, "")
    if not repository:
        return None
    from tasks.features.online import OnlineFeatures

    online = OnlineFeatures(Path(repository), os.environ.get(ONLINE_STORE, ""))
    moment = os.environ.get(ONLINE_MOMENT, "")
    fixed = datetime.fromisoformat(moment) if moment else None
    return lambda entities: online.lookup(entities, fixed or datetime.now(UTC))


def _missing(problems: Sequence[tuple[int, str, str]]) -> ValidationError:
    """The error that pydantic would raise for these rows and columns."""
    from pydantic_core import InitErrorDetails, PydanticCustomError

    details = [
        InitErrorDetails(
            type=PydanticCustomError("missing_feature", "{name} {reason}", {"name": name, "reason": reason}),
            loc=("rows", position, name),
            input=None,
        )
        for position, name, reason in problems
    ]
    return ValidationError.from_exception_data("Request", details)
