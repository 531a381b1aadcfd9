"""The part of a case that says how a candidate is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tasks.foundation.config import Section, Span


def _name_nan(value: Any) -> Any:
    """Write YAML's .nan as the text 'nan': no JSON holds the number, and a section has a digest over its JSON."""
    if isinstance(value, dict):
        return {key: _name_nan(each) for key, each in value.items()}
    return "nan" if isinstance(value, float) and value != value else value


Parameters = Annotated[dict[str, Any], BeforeValidator(_name_nan)]


class Target(Section):
    column: str = Field(description="Column of examples to predict.")
    task: Literal["classification", "regression"] = Field(description="classification: two classes, 0 and 1.")


class Encoder(Section):
    """A scikit-learn transformer for some columns; columns without one go to the model as they are.

    A column named by several encoders goes through them one after the other: an imputer, then a scaler.
    """

    columns: tuple[str, ...] = Field(min_length=1)
    family: str = Field(pattern=r"^sklearn\.[\w.]+$", description="Class, such as sklearn.preprocessing.OneHotEncoder.")
    parameters: Parameters = Field({}, description="Its arguments; nan for a missing value.")


class Split(Section):
    """Which examples are held out to evaluate on."""

    by: Literal["time", "hash"] = Field(description="time: the last `holdout`; hash: a `share` by hashed example_id.")
    holdout: Span | None = Field(None, description="For time: how much at the end is held out.")
    share: float | None = Field(None, gt=0, lt=1, description="For hash: which share is held out.")

    @model_validator(mode="after")
    def _has_its_size(self) -> Split:
        if (self.by == "time") != (self.holdout is not None) or (self.by == "hash") != (self.share is not None):
            raise ValueError("by: time needs holdout (such as 14d) and no share; by: hash needs share and no holdout")
        return self


class Train(Section):
    family: str = Field(
        pattern=r"^sklearn\.[\w.]+$",
        description="Estimator class, such as sklearn.ensemble.HistGradientBoostingClassifier.",
    )
    parameters: Parameters = Field({}, description="Its arguments; nan for a missing value.")
    encoders: tuple[Encoder, ...] = Field((), description="How columns are encoded, in this order, before the others.")
    split: Split
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    threads: int = Field(2, ge=1, le=256, description="OpenMP threads while fitting and scoring.")
    rows: int | None = Field(None, ge=100, description="Train on at most so many of the newest rows; empty: on all.")
