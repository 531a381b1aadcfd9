"""The request and response types of a release, built from its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, create_model

from tasks.train.classes import DECISION_THRESHOLD, DEFAULT_CLASSES, Classes, class_scores

MAX_ROWS = 10_000  # in a request; `driftline predict CASE FILE` takes any number
MAX_TEXT = 1000  # characters of a key or id, and of a feature whose release does not say more

# strict: "12" is no number and 12 no text; an integer is a valid number
VALUE_TYPES: dict[str, Any] = {
    "number": Annotated[float, Field(strict=True, allow_inf_nan=False)],
    "integer": Annotated[int, Field(strict=True)],
    "text": Annotated[str, Field(strict=True, max_length=MAX_TEXT)],
}
TEXT = Annotated[str, StringConstraints(strict=True, strip_whitespace=True)]
BOOLEAN = Annotated[bool, Field(strict=True), AfterValidator(float)]
BLANK = Annotated[TEXT, StringConstraints(max_length=0), AfterValidator(lambda _: None)]
# what a response says of its request, beside the predictions
NOTES: dict[str, tuple[Any, str]] = {
    "ignored_columns": (list[str], "Columns of rows that are no features: they changed nothing."),
    "missing_columns": (list[str], "Features that a row lacks: taken as missing."),
    "unseen_categories": (dict[str, list[str]], "By column, values that the training data did not have."),
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
    `ignored` and `in_request` map attributes to columns: of the source, but no features; and of features that a
    request carries.
    """

    request: type[BaseModel]
    answer: type[BaseModel]
    attributes: Mapping[str, str]  # column or join key -> attribute
    columns: tuple[str, ...]  # in the model's order
    views: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # name -> (join keys, features)
    classes: Classes  # (False, True): 0 and 1 of the model, as the source has them
    ignored: Mapping[str, str]
    in_request: Mapping[str, str]


def make_schema(manifest: Mapping[str, Any], golden: Sequence[Mapping[str, Any]]) -> Schema:
    """Build a release's types; the first golden example becomes the example in its OpenAPI document."""
    sealed = manifest["sealed"]
    example = {"example_id": golden[0]["example_id"], **golden[0]["features"]}
    fields: dict[str, Any] = {}
    attributes: dict[str, str] = {}

    def add(name: str, value_type: Any, about: str, *, required: bool = False) -> str:
        attribute = attributes[name] = f"f{len(attributes)}"
        shown = None if example.get(name) is None else [example[name]]
        default: Any = ... if required else None
        fields[attribute] = (value_type, Field(default, alias=name, description=about, examples=shown))
        return attribute

    missing = sealed.get("missing", [""])
    in_request = {}
    for column in sealed["columns"]:
        name, of_request = column["name"], column["origin"] == "request"
        about = f"From {column['origin']} by {', '.join(column['entities'])}; left out with all of them: looked up."
        if of_request:
            about = "Known at the moment of prediction" + (
                "; left out, null or empty where missing." if column["nullable"] else "."
            )
        attribute = add(name, _value_type(column, missing), about, required=of_request and not column["nullable"])
        if of_request:
            in_request[attribute] = name
    for key, kind in sealed["entities"].items():
        if key not in attributes:
            add(key, VALUE_TYPES[kind] | None, "Join key; needed where features are looked up.")
    if "example_id" not in attributes:
        add("example_id", VALUE_TYPES["text"] | None, "Comes back with the prediction.")
    ignored = {
        add(name, Any, "Ignored: a column of the source that is no feature."): name
        for name in sealed.get("ignored", ())
        if name not in attributes
    }
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
        ignored=ignored,
        in_request=in_request,
    )


def _value_type(column: Mapping[str, Any], missing: Sequence[str]) -> Any:
    """The type of a feature in a request; its members are tried in order, without calling Python for a usual value."""
    members: list[Any] = [VALUE_TYPES[column["kind"]], *([BOOLEAN] if column.get("boolean") else [])]
    if column["kind"] == "text":
        longest = column.get("max_length", MAX_TEXT)
        members = [Annotated[TEXT, StringConstraints(min_length=1, max_length=longest)]]  # trimmed, as in training
    if column["nullable"]:
        members += [None, BLANK]
        if words := tuple(word for word in missing if word.strip()):
            members.insert(0, Annotated[Literal[words], AfterValidator(lambda _: None)])  # before the texts
    if len(members) == 1:
        return members[0]
    return Annotated[Union[tuple(members)], Field(union_mode="left_to_right")]  # noqa: UP007


def classes_of(target: Mapping[str, Any]) -> Classes:
    """The classes of a sealed target, in the order of the model's probabilities."""
    if target.get("boolean"):
        return (False, True)
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
        negative, positive = map(json.dumps, classes)
        about = f"{positive} where the score is {DECISION_THRESHOLD} or more, else {negative}."
        fields["prediction"] = (type(classes[1]), Field(description=about, examples=[shown["prediction"]]))
        about = f"Probability that {column} is {positive}."
        fields["score"] = (float, Field(description=about, examples=[shown["score"]]))
    else:
        fields["prediction"] = (float, Field(description=f"Predicted {column}.", examples=[shown["prediction"]]))
    prediction = create_model("Prediction", **fields)
    notes: dict[str, Any] = {
        name: (kind | None, Field(None, description=f"{about} Absent if there are none."))
        for name, (kind, about) in NOTES.items()
    }
    answer: type[BaseModel] = create_model(
        "Answer",
        release=(str, Field(description="Digest of the release that answered.", examples=[digest])),
        predictions=(list[prediction], Field(description="One a row, in their order.", examples=[[shown]])),
        **notes,
    )
    return answer


def format_prediction(example_id: str | None, predicted: Any, classes: Classes) -> dict[str, Any]:
    """A row of the response: the predicted number; 0 or 1 (false or true) and the score of 1; or a class, its score,
    and all scores.
    """
    if not classes:
        return {"example_id": example_id, "prediction": predicted}
    if classes == DEFAULT_CLASSES:
        chosen = classes[int(predicted >= DECISION_THRESHOLD)]
        return {"example_id": example_id, "prediction": chosen, "score": predicted}
    scores = class_scores(predicted, classes)
    values = list(scores.values())
    best = values.index(max(values)) if len(values) > 2 else int(predicted >= DECISION_THRESHOLD)
    return {"example_id": example_id, "prediction": classes[best], "score": values[best], "scores": scores}


def _views(columns: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    views: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for column in columns:
        if column["origin"] != "request":
            keys, features = views.get(column["origin"], (tuple(column["entities"]), ()))
            views[column["origin"]] = (keys, (*features, column["name"]))
    return views
