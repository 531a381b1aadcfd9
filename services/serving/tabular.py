"""The service in a Bento: typed rows in, predictions out, and which release made them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from pydantic import ValidationError

from services.serving.schema import ReleaseAnswer, Schema, answer_of, make_schema
from tasks.core.errors import DriftlineError, InputError, Unavailable
from tasks.train.classes import matches_label

if TYPE_CHECKING:
    from bentoml import Service
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

# Environment variables. They say where features that requests leave out are looked up.
ONLINE_REPOSITORY = "DRIFTLINE_ONLINE_REPO"  # folder that materialise() gave; empty: nothing is looked up
ONLINE_STORE = "DRIFTLINE_ONLINE_STORE"  # the platform's setting
ONLINE_MOMENT = "DRIFTLINE_ONLINE_MOMENT"  # ISO; the moment that lookups pretend to be at, for replays; empty: now
INLINE_ROWS = 64  # more rows are scored in a thread, so that other requests and health checks are answered meanwhile
MOST_PROBLEMS = 20

LookUp = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]  # join keys to all views' features


def make_service(folder: Path) -> Service[Any]:
    """Make the BentoML service of the release in `folder` (manifest.json, model.skops, golden.json)."""
    import bentoml
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    schema = make_schema(manifest, golden)
    sealed = manifest["sealed"]
    about = ReleaseAnswer(release=manifest["digest"], case=sealed["case"], as_of=sealed["as_of"])

    class Request(bentoml.IODescriptor, schema.request):  # type: ignore[misc, name-defined]
        @classmethod
        async def from_http_request(cls, request: HttpRequest, serde: Any) -> Any:
            try:
                return cls.model_validate_json(await request.body() or b"{}")
            except ValidationError as error:  # BentoML would log a traceback with the client's values
                return cls.model_construct(rows=error)

    class Answer(bentoml.IODescriptor, schema.answer):  # type: ignore[misc, name-defined]
        pass

    async def which(_: HttpRequest) -> Response:
        return JSONResponse(about.model_dump())

    class Predictor:
        def __init__(self) -> None:
            from tasks.train.tabular.model_file import load

            self.model = load(folder / "model.skops")
            self.look_up = online_features() if schema.views else None
            check_golden(self.model, schema, golden)

        @bentoml.api(route="/predict", input_spec=Request, output_spec=Answer)
        async def predict(self, rows: list[Any] | ValidationError) -> Any:
            """Predict rows. Features of a view that are left out are looked up in the online store."""
            try:
                if isinstance(rows, ValidationError):
                    raise rows
                if len(rows) > INLINE_ROWS or needs_lookup(schema, rows):
                    predictions = await to_thread.run_sync(answer_rows, self.model, schema, rows, self.look_up)
                else:
                    predictions = answer_rows(self.model, schema, rows)
            except (ValidationError, InputError) as error:
                return JSONResponse(refusal(error), status_code=400)
            except Unavailable as error:
                return JSONResponse({"error": error.what}, status_code=503)
            return JSONResponse({"release": about.release, "predictions": predictions})

        @bentoml.api(route="/release", output_spec=ReleaseAnswer)
        async def release(self) -> Any:
            """Tell which release answers here; GET works too."""
            return about

    service = bentoml.service(
        Predictor, name=sealed["case"], traffic={"timeout": 60}, logging={"access": {"enabled": False}}
    )
    service.mount_asgi_app(Starlette(routes=[Route("/release", which, methods=["GET"])]), path="/", name="which")
    return service


def check_golden(model: Any, schema: Schema, golden: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to serve a model that answers otherwise than when it was sealed (other libraries, another machine).

    Raises: DriftlineError.
    """
    rows = schema.request.model_validate({"rows": [example["features"] for example in golden]}).rows  # type: ignore[attr-defined]
    for answer, example in zip(answer_rows(model, schema, rows), golden, strict=True):
        if not matches_label(answer, example["prediction"]):
            raise DriftlineError(
                "The model does not answer as when it was sealed.",
                where=f"example {example['example_id']}",
                found=json.dumps(answer),
                allowed=str(example["prediction"]),
                todo="Serve it with the locked versions of its libraries, or release it again.",
            )


def refusal(error: ValidationError | InputError) -> dict[str, Any]:
    """What a client is told of a request that can't be answered: each place and what is wrong there."""
    if isinstance(error, InputError):
        return {"error": error.what, "detail": [{"loc": ["rows"], "msg": error.found or error.what}]}
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return {"error": f"Problems in the request: {len(problems)}.", "detail": problems[:MOST_PROBLEMS]}


def answer_rows(model: Any, schema: Schema, rows: Sequence[Any], look_up: LookUp | None = None) -> list[dict[str, Any]]:
    """Score validated rows, one answer each.

    Raises: ValidationError, naming row and column, where features are missing and can't be looked up.
    """
    from tasks.train.tabular.model_file import predict

    names = schema.attributes
    values = {column: [getattr(row, names[column]) for row in rows] for column in schema.columns}
    if needs_lookup(schema, rows):
        fill_features(schema, rows, values, look_up)
    predictions = predict(model, values).tolist()
    identity = names["example_id"]
    return [
        answer_of(getattr(row, identity), predicted, schema.classes)
        for row, predicted in zip(rows, predictions, strict=True)
    ]


def needs_lookup(schema: Schema, rows: Sequence[Any]) -> bool:
    features = {schema.attributes[name] for _, names in schema.views.values() for name in names}
    return any(not features <= row.model_fields_set for row in rows)


def fill_features(schema: Schema, rows: Sequence[Any], values: Mapping[str, list[Any]], look_up: LookUp | None) -> None:
    """Put the features of views that rows leave out into `values`, looked up by the views' join keys."""
    names = schema.attributes
    wanted: dict[int, list[str]] = {}
    problems: list[tuple[int, str, str]] = []
    for position, row in enumerate(rows):
        for view, (keys, features) in schema.views.items():
            absent = [name for name in features if names[name] not in row.model_fields_set]
            if absent and look_up is None:
                why = "is missing, and this service has no online store to look it up in"
                problems += [(position, name, why) for name in absent]
            elif absent and len(absent) < len(features):
                problems += [(position, name, f"is missing; give all features of {view} or none") for name in absent]
            elif absent:
                without = [key for key in keys if getattr(row, names[key]) is None]
                problems += [(position, key, f"is needed to look up the features of {view}") for key in without]
                wanted.setdefault(position, []).extend(features)
    if problems or look_up is None:
        raise _missing(problems)
    keys_of_all = sorted({key for keys, _ in schema.views.values() for key in keys})
    entities = [{key: getattr(rows[position], names[key]) for key in keys_of_all} for position in wanted]
    for (position, sought), found in zip(wanted.items(), look_up(entities), strict=True):
        for name in sought:
            values[name][position] = found[name]


def online_features() -> LookUp | None:
    """What looks up features in the online store that the environment names; None when it names none.

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
    """An error of the same form as those of wrong types."""
    from pydantic_core import InitErrorDetails, PydanticCustomError

    details = [
        InitErrorDetails(
            type=PydanticCustomError("missing_feature", "{name} {why}", {"name": name, "why": why}),
            loc=("rows", position, name),
            input=None,
        )
        for position, name, why in problems
    ]
    return ValidationError.from_exception_data("Request", details)
