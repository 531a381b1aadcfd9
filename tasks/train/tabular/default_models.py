"""The few sound models that a proposal compares, as train sections of a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.train.tabular.column_roles import NATIVE_CATEGORIES, ColumnRole, Role
from tasks.train.tabular.encoders import DATE_PARTS

BOOSTING = "sklearn.ensemble.HistGradientBoosting"
DUMMY = "dummy"
FEW_ROWS = 3000  # up to so many, early stopping would spare too few rows to stop by
MAX_TERMS = 5000  # of a text column: a model file lists them
TEXT_DIMENSIONS = 24  # of a text column for trees
SKEWED = 1.0  # skewness of a target from which on other losses are compared


@dataclass(frozen=True)
class Shape:
    """What of the data decides which models come into question."""

    rows: int
    task: str
    roles: Sequence[ColumnRole]
    skewness: float = 0.0  # of a regression's target
    least: float = 0.0  # of a regression's target
    terms: Mapping[str, int] = field(default_factory=dict)  # of text columns: how many a vectorizer finds

    def named(self, *roles: Role) -> list[str]:
        return [column.name for column in self.roles if column.role in roles]


def default_models(shape: Shape) -> dict[str, dict[str, Any]]:
    """Train sections by name, without split, seed and threads; the dummy comes last."""
    kind = "Classifier" if shape.task == "classification" else "Regressor"
    categories = shape.named("category")
    native: dict[str, Any] = {"categorical_features": categories} if categories else {}
    boosting: dict[str, Any] = {"family": BOOSTING + kind, "encoders": tree_encoders(shape)}
    models: dict[str, dict[str, Any]] = {"boosting": {**boosting, "parameters": native}}
    slow = {**boosting, "parameters": {**_slow(shape), **native}}
    models["slow boosting"] = slow
    if shape.task == "regression" and shape.least >= 0 and shape.skewness > SKEWED:
        loss = "gamma" if shape.least > 0 else "poisson"
        models[f"slow boosting, {loss} loss"] = {**slow, "parameters": {"loss": loss, **slow["parameters"]}}
        models["slow boosting of log1p"] = {**slow, "target_transform": "log1p"}
    linear, dummy = (
        ({"family": "sklearn.linear_model.LogisticRegression", "parameters": {"max_iter": 300}}, "prior")
        if shape.task == "classification"
        else ({"family": "sklearn.linear_model.Ridge", "parameters": {"alpha": 10.0}}, "mean")
    )
    models["linear"] = {**linear, "encoders": linear_encoders(shape)}
    models[DUMMY] = {
        "family": f"sklearn.dummy.Dummy{kind}",
        "parameters": {"strategy": dummy},
        "encoders": tree_encoders(shape),
    }
    return models


def _slow(shape: Shape) -> dict[str, Any]:
    if shape.rows <= FEW_ROWS:
        return {"learning_rate": 0.05, "max_iter": 120, "max_leaf_nodes": 8, "min_samples_leaf": 10}
    stop = {"early_stopping": True, "n_iter_no_change": 20, "validation_fraction": 0.1}
    return {"learning_rate": 0.05, "max_iter": 500, **stop}


def tree_encoders(shape: Shape, categories: str = "ordinal") -> list[dict[str, Any]]:
    """Encoders for trees; categories as numbers in their order (ordinal), by their targets (target), or one-hot."""
    encoders = []
    if names := shape.named("category"):
        encoder = category_encoder(names, categories)
        if categories == "one-hot":
            encoder["parameters"]["sparse_output"] = False  # trees take gaps in dense columns only
        encoders.append(encoder)
    encoders += _shared_encoders(shape)
    for name in shape.named("text"):
        dimensions = min(TEXT_DIMENSIONS, shape.terms[name] // 2)
        encoders.append(_encoder([name], "decomposition.TruncatedSVD", n_components=max(1, dimensions)))
    return encoders


def category_encoder(names: list[str], categories: str) -> dict[str, Any]:
    """An encoder of categories: ordinal, target or one-hot."""
    if categories == "ordinal":
        # the limit holds when later rows bring more categories
        return _encoder(names, "preprocessing.OrdinalEncoder", max_categories=NATIVE_CATEGORIES)
    if categories == "target":
        return _encoder(names, "preprocessing.TargetEncoder")
    return _encoder(names, "preprocessing.OneHotEncoder", handle_unknown="infrequent_if_exist", min_frequency=5)


def linear_encoders(shape: Shape, categories: str = "one-hot") -> list[dict[str, Any]]:
    """Encoders for models that take scaled numbers without gaps."""
    encoders = []
    if names := shape.named("category"):
        encoders.append(category_encoder(names, categories))
    encoders += _shared_encoders(shape)
    if names := shape.named("number", "date"):
        encoders.append(_encoder(names, "impute.SimpleImputer", strategy="median", keep_empty_features=True))
    if names := shape.named("number", "date", "many_categories"):
        encoders.append(_encoder(names, "preprocessing.StandardScaler"))
    return encoders


def _shared_encoders(shape: Shape) -> list[dict[str, Any]]:
    encoders = []
    if names := shape.named("many_categories"):
        encoders.append(_encoder(names, "preprocessing.TargetEncoder"))
    dates: dict[tuple[str, ...], list[str]] = {}
    for column in shape.roles:
        if column.role == "date":
            dates.setdefault(_date_parts(column), []).append(column.name)
    for parts, names in dates.items():
        encoders.append({"columns": names, "family": "driftline.DateParts", "parameters": {"parts": list(parts)}})
    for column in shape.roles:
        if column.role == "text":
            encoders.append(
                _encoder([column.name], "feature_extraction.text.TfidfVectorizer", **vectorizer_parameters(column))
            )
    return encoders


def _date_parts(column: ColumnRole) -> tuple[str, ...]:
    """Of a row's own moment only what comes back: what a model learns of a day says nothing of later ones."""
    once = ("year", "day_of_year", "days") if column.is_moment else ()
    return tuple(part for part in DATE_PARTS if part not in once and (column.has_hours or part != "hour"))


def vectorizer_parameters(column: ColumnRole) -> dict[str, Any]:
    """Words and pairs of words; of texts of a word or two, their letters."""
    if column.words >= 2:
        grams: dict[str, Any] = {"ngram_range": [1, 2]}
    else:
        grams = {"analyzer": "char_wb", "ngram_range": [2, 4]}
    return {**grams, "min_df": 2, "max_features": MAX_TERMS, "sublinear_tf": True}


def _encoder(columns: list[str], family: str, **parameters: Any) -> dict[str, Any]:
    encoder: dict[str, Any] = {"columns": columns, "family": f"sklearn.{family}"}
    return {**encoder, "parameters": parameters} if parameters else encoder
