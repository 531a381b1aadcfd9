"""The request and response types of a release, built from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from tasks.train.classes import DECISION_THRESHOLD, DEFAULT_CLASSES, Classes, class_scores

MAX_ROWS = 10_000  # in a request; use the predict flow for more

# strict: "12" is no number and 12 no text; an integer is a valid number
VALUE_TYPES: dict[str, Any] = {
    "number": Annotated[float, Field(strict=True, allow_inf_nan=False)],
    "integer": Annotated[int, Field(strict=True)],
    "text": Annotated[str, Field(strict=True, max_length=1000)],
}


class ReleaseAnswer(BaseModel):
    """Which release answers here."""

    release: str = Field(description="Digest of the release, SHA-256.")
    case: str
    as_of: str = Field(description="The moment up to which its data was known, UTC.")


@dataclass(frozen=True)
class Schema:
    """A release's request and response types; the values of a row are the attributes f0, f1 ... of a Row.

    `attributes` maps columns to them, since a column may have the name of a pydantic method (`json`, `_id`).
    """

    request: type[BaseModel]
    answer: type[BaseModel]
    attributes: Mapping[str, str]  # column or join key -> attribute
    columns: tuple[str, ...]  # in the model's order
    views: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # name -> (join keys, features)
    classes: Classes


def make_schema(manifest: Mapping[str, Any], golden: Sequence[Mapping[str, Any]]) -> Schema:
    """Build a release's types; the first golden example becomes the example in its OpenAPI document."""
    sealed = manifest["sealed"]
    example = {"example_id": golden[0]["example_id"], **golden[0]["features"]}
    fields: dict[str, Any] = {}
    attributes: dict[str, str] = {}

    def add(name: str, kind: str, *, required: bool, nullable: bool, about: str) -> None:
        attributes[name] = f"f{len(attributes)}"
        shown = None if example.get(name) is None else [example[name]]
        default: Any = ... if required else None
        value_type = VALUE_TYPES[kind] | None if nullable else VALUE_TYPES[kind]
        fields[attributes[name]] = (value_type, Field(default, alias=name, description=about, examples=shown))

    for column in sealed["columns"]:
        in_request = column["origin"] == "request"
        about = f"From {column['origin']} by {', '.join(column['entities'])}; left out with all of them: looked up."
        if in_request:
            about = "Known at the moment of prediction" + ("; null where missing." if column["nullable"] else ".")
        add(column["name"], column["kind"], required=in_request, nullable=column["nullable"], about=about)
    for key, kind in sealed["entities"].items():
        if key not in attributes:
            add(key, kind, required=False, nullable=True, about="Join key; needed where features are looked up.")
    if "example_id" not in attributes:
        add("example_id", "text", required=False, nullable=True, about="Comes back with the prediction.")
    strict = ConfigDict(extra="forbid")
    row = create_model("Row", __config__=ConfigDict(extra="forbid", json_schema_extra={"example": example}), **fields)
    rows = Field(min_length=1, max_length=MAX_ROWS, description="What to predict.", examples=[[example]])
    request = create_model("Request", __config__=strict, rows=(list[row], rows))
    return Schema(
        request=request,
        answer=_response_model(sealed["target"], golden[0], manifest["digest"]),
        attributes=attributes,
        columns=tuple(column["name"] for column in sealed["columns"]),
        views=_views(sealed["columns"]),
        classes=classes_of(sealed["target"]),
    )


def classes_of(target: Mapping[str, Any]) -> Classes:
    """The classes of a sealed target, in the order of the model's probabilities."""
    return tuple(target.get("classes", DEFAULT_CLASSES)) if target["task"] == "classification" else ()


def _response_model(target: Mapping[str, Any], golden: Mapping[str, Any], digest: str) -> type[BaseModel]:
    column = target["column"]
    identity = Field(description="The row's example_id, as given.")
    classes = classes_of(target)
    shown = format_prediction(golden["example_id"], golden["prediction"], classes)
    fields: dict[str, Any] = {"example_id": (str | None, identity)}
    if "scores" in shown:
        about = f"Predicted {column}" + (
            f": {classes[1]} from a probability of {DECISION_THRESHOLD} on." * (len(classes) == 2)
        )
        fields["prediction"] = (Literal[classes], Field(description=about, examples=[shown["prediction"]]))
        fields["score"] = (float, Field(description="Its probability.", examples=[shown["score"]]))
        about = "The probability of each class."
        fields["scores"] = (dict[str, float], Field(description=about, examples=[shown["scores"]]))
    elif "score" in shown:
        about = f"1 where the score is {DECISION_THRESHOLD} or more, else 0."
        fields["prediction"] = (int, Field(description=about, examples=[shown["prediction"]]))
        about = f"Probability that {column} is 1."
        fields["score"] = (float, Field(description=about, examples=[shown["score"]]))
    else:
        fields["prediction"] = (float, Field(description=f"Predicted {column}.", examples=[shown["prediction"]]))
    prediction = create_model("Prediction", **fields)
    return create_model(
        "Answer",
        release=(str, Field(description="Digest of the release that answered.", examples=[digest])),
        predictions=(list[prediction], Field(description="One a row, in their order.", examples=[[shown]])),
    )


def format_prediction(example_id: str | None, predicted: Any, classes: Classes) -> dict[str, Any]:
    """A row of the response: the predicted number; 0 or 1 and the score of 1; or a class, its score, and all scores."""
    if not classes:
        return {"example_id": example_id, "prediction": predicted}
    if classes == DEFAULT_CLASSES:
        return {"example_id": example_id, "prediction": int(predicted >= DECISION_THRESHOLD), "score": predicted}
    scores = class_scores(predicted, classes)
    values = list(scores.values())
    chosen = values.index(max(values)) if len(values) > 2 else int(predicted >= DECISION_THRESHOLD)
    return {"example_id": example_id, "prediction": classes[chosen], "score": values[chosen], "scores": scores}


def _views(columns: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    views: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for column in columns:
        if column["origin"] != "request":
            keys, features = views.get(column["origin"], (tuple(column["entities"]), ()))
            views[column["origin"]] = (keys, (*features, column["name"]))
    return views
