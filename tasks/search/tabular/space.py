"""What is searched for a table: families of models with their parameters, and how categories are encoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CaseError
from tasks.train.tabular.default_models import BOOSTING, SKEWED, Shape, linear_encoders, tree_encoders

if TYPE_CHECKING:
    from optuna import Trial

NETWORK_ROWS = (500, 200_000)
CASE = "case"  # encoders and categorical features as the case has them
RARE = 0.2  # share of a class below which weights of the classes are a choice
WEIGHTS = ("equal", "balanced")
CALIBRATIONS = ("none", "sigmoid", "isotonic")
PROBABILITIES = ("brier", "log_loss")  # metrics that a calibration changes
ISOTONIC_ROWS = 1000  # fewer would overfit its steps
MAX_INTERACTING = 15  # columns; more give thousands of products
_FOREIGN = "its trees are of a format that the model file does not hold; boosting is the same method"
NOT_STORED = {
    **dict.fromkeys(("lightgbm", "xgboost", "catboost"), _FOREIGN),
    "knn": "a model file would hold all training rows, and its trees of neighbours are of a type that is not trusted",
}


@dataclass(frozen=True)
class Space:
    """The space of one table."""

    shape: Shape
    families: tuple[str, ...]
    classes: int = 2
    rarest: float = 1.0  # share of the rarest class
    metric: str = "auc"
    monotone: Mapping[str, int] = field(default_factory=dict)  # 1: rising, -1: falling
    own: Mapping[str, Any] = field(default_factory=dict)  # the train section of the case

    @property
    def _kind(self) -> str:
        return "Classifier" if self.shape.task == "classification" else "Regressor"

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """A train section, without split, seed and threads."""
        name = trial.suggest_categorical("family", list(self.families))
        section = FAMILIES[name](self, trial)
        if (
            self.rarest < RARE
            and name != "network"
            and trial.suggest_categorical("class_weight", WEIGHTS) != WEIGHTS[0]
        ):
            section["parameters"]["class_weight"] = "balanced"
        if self.metric in PROBABILITIES:
            choices = CALIBRATIONS[: 3 if self.shape.rows >= ISOTONIC_ROWS else 2]
            if (calibration := trial.suggest_categorical("calibration", choices)) != CALIBRATIONS[0]:
                section["calibration"] = calibration
        return section

    def first(self) -> list[dict[str, Any]]:
        """Sound settings of each family, which the sampler starts from."""
        leaf, tree_leaf = max(5, min(1000, self.shape.rows // 60)), max(1, min(20, self.shape.rows // 200))
        small = {"family": "boosting", "leaves": 10, "leaf_rows": leaf, "features": 0.3, "rate": 0.05, "steps": 200}
        starts: list[dict[str, Any]] = [
            small,
            {"family": "boosting", "leaves": 31, "leaf_rows": 20, "features": 1.0, "rate": 0.1, "steps": 100},
            {"family": "linear", "strength": 1.0},
            {"family": "extra_trees", "trees": 80, "tree_leaf_rows": tree_leaf, "tree_features": 0.5},
            {"family": "forest", "trees": 60, "tree_leaf_rows": tree_leaf, "tree_features": 0.3},
            {"family": "network"},
        ]
        if self._has_own_boosting:
            starts.insert(0, self._near_own())
        plain = {"class_weight": WEIGHTS[0], "calibration": CALIBRATIONS[0]}
        return [{**plain, **each} for each in starts if each["family"] in self.families]

    @property
    def _has_own_boosting(self) -> bool:
        return arm_of(self.own.get("family", "")) == "boosting" and bool(self.own.get("encoders"))

    @property
    def _encodings(self) -> list[str]:
        return [*([CASE] if self._has_own_boosting else []), "native", "ordinal", "target"]

    def _near_own(self) -> dict[str, Any]:
        """The case's boosting with more, smaller steps."""
        own = self.own.get("parameters", {})
        return {
            "family": "boosting",
            "categories": CASE,
            "rate": max(0.02, min(0.2, 0.6 * own.get("learning_rate", 0.1))),
            "steps": max(40, min(500, int(1.7 * own.get("max_iter", 100)))),
            "leaves": max(4, min(64, own.get("max_leaf_nodes") or 31)),
            "leaf_rows": max(5, min(max(20, self.shape.rows // 20), own.get("min_samples_leaf", 20))),
            "l2": max(1e-3, min(100.0, own.get("l2_regularization", 1e-3))),
            "features": max(0.15, min(1.0, own.get("max_features", 1.0))),
        }

    def boosting(self, trial: Trial) -> dict[str, Any]:
        most = max(20, self.shape.rows // 20)
        parameters: dict[str, Any] = {
            "learning_rate": _rounded(trial.suggest_float("rate", 0.02, 0.2, log=True)),
            "max_iter": trial.suggest_int("steps", 40, 500, log=True),
            "max_leaf_nodes": trial.suggest_int("leaves", 4, 64, log=True),
            "min_samples_leaf": trial.suggest_int("leaf_rows", 5, most, log=True),
            "l2_regularization": _rounded(trial.suggest_float("l2", 1e-3, 100.0, log=True)),
            "max_features": _rounded(trial.suggest_float("features", 0.15, 1.0)),
        }
        section: dict[str, Any] = {"family": BOOSTING + self._kind, "parameters": parameters}
        categories, encoding = self.shape.named("category"), "ordinal"
        if categories:
            encoding = trial.suggest_categorical("categories", self._encodings)
        if encoding == CASE:
            if "categorical_features" in self.own.get("parameters", {}):
                parameters["categorical_features"] = self.own["parameters"]["categorical_features"]
        elif encoding == "native":
            parameters["categorical_features"] = categories
        if self.monotone:
            parameters["monotonic_cst"] = dict(self.monotone)
        section["encoders"] = (
            self.own["encoders"]
            if encoding == CASE
            else tree_encoders(self.shape, "target" if encoding == "target" else "ordinal")
        )
        return self._with_target(trial, section, parameters)

    def forest(self, trial: Trial) -> dict[str, Any]:
        return self._trees(trial, f"sklearn.ensemble.RandomForest{self._kind}")

    def extra_trees(self, trial: Trial) -> dict[str, Any]:
        return self._trees(trial, f"sklearn.ensemble.ExtraTrees{self._kind}")

    def _trees(self, trial: Trial, family: str) -> dict[str, Any]:
        encoding = "ordinal"
        if self.shape.named("category"):
            encoding = trial.suggest_categorical("tree_categories", ["ordinal", "target", "one-hot"])
        parameters = {
            "n_estimators": trial.suggest_int("trees", 40, 200, log=True),
            "min_samples_leaf": trial.suggest_int("tree_leaf_rows", 1, max(5, self.shape.rows // 100), log=True),
            "max_features": _rounded(trial.suggest_float("tree_features", 0.1, 1.0)),
        }
        return {"family": family, "parameters": parameters, "encoders": tree_encoders(self.shape, encoding)}

    def linear(self, trial: Trial) -> dict[str, Any]:
        encoding = "one-hot"
        if self.shape.named("category"):
            encoding = trial.suggest_categorical("linear_categories", ["one-hot", "target"])
        encoders = linear_encoders(self.shape, encoding)
        numbers = self.shape.named("number", "many_categories")
        if 2 <= len(numbers) <= MAX_INTERACTING and trial.suggest_categorical("interactions", [False, True]):
            products = {"degree": 2, "interaction_only": True, "include_bias": False}
            encoders.append(
                {"columns": numbers, "family": "sklearn.preprocessing.PolynomialFeatures", "parameters": products}
            )
        strength = _rounded(trial.suggest_float("strength", 1e-3, 100.0, log=True))  # of the fit, not of the penalty
        if self.shape.task == "classification":
            parameters: dict[str, Any] = {"C": strength, "max_iter": 300}
            return {"family": "sklearn.linear_model.LogisticRegression", "parameters": parameters, "encoders": encoders}
        section = {"family": "sklearn.linear_model.Ridge", "encoders": encoders}
        return self._with_target(trial, section, {"alpha": _rounded(10 / strength)})

    def network(self, trial: Trial) -> dict[str, Any]:
        width = trial.suggest_int("width", 8, 128, log=True)
        layers = trial.suggest_int("layers", 1, 2)
        parameters = {
            "hidden_layer_sizes": [width] * layers,
            "alpha": _rounded(trial.suggest_float("penalty", 1e-5, 10.0, log=True)),
            "learning_rate_init": _rounded(trial.suggest_float("network_rate", 3e-4, 1e-2, log=True)),
            "max_iter": trial.suggest_int("passes", 5, 60, log=True),
        }
        family = f"sklearn.neural_network.MLP{self._kind}"
        section = {"family": family, "encoders": linear_encoders(self.shape)}
        return self._with_target(trial, section, parameters)

    def _with_target(self, trial: Trial, section: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
        """Of a skewed target that is never negative, its logarithm is a choice."""
        skewed = self.shape.task == "regression" and self.shape.least >= 0 and self.shape.skewness > SKEWED
        if skewed and trial.suggest_categorical("logarithm", [False, True]):
            section["target_transform"] = "log1p"
        return {**section, "parameters": parameters}


FAMILIES: dict[str, Callable[[Space, Trial], dict[str, Any]]] = {
    "boosting": Space.boosting,
    "forest": Space.forest,
    "extra_trees": Space.extra_trees,
    "linear": Space.linear,
    "network": Space.network,
}
CLASSES = {
    "HistGradientBoosting": "boosting",
    "RandomForest": "forest",
    "ExtraTrees": "extra_trees",
    "LogisticRegression": "linear",
    "Ridge": "linear",
    "MLP": "network",
}


def arm_of(family: str) -> str:
    """The short name of a class."""
    name = family.rpartition(".")[2]
    return next((arm for prefix, arm in CLASSES.items() if name.startswith(prefix)), name)


def check_families(named: Sequence[str], monotone: bool) -> None:
    """Raises: CaseError for a family that does not exist or can't be stored, or when none holds the constraints."""
    for name in named:
        if name not in FAMILIES:
            raise CaseError(
                f"The search knows no family {name}." if name not in NOT_STORED else f"No model file can hold {name}.",
                where="search.families",
                found=name + (f": {NOT_STORED[name]}" if name in NOT_STORED else ""),
                allowed=", ".join(FAMILIES),
                todo="Remove it.",
            )
    if monotone and named and "boosting" not in named:
        raise CaseError(
            "No family fits the constraints.",
            where="search.families, search.monotone",
            found=f"monotone columns, and the families {', '.join(named)}",
            allowed="boosting, which alone can be held monotone",
            todo="Add boosting to search.families, or remove search.monotone.",
        )


def choose_families(named: Sequence[str], rows: int, monotone: bool) -> tuple[str, ...]:
    """The families to search: those that the case names, or all that fit the rows. Raises: as `check_families`."""
    check_families(named, monotone)
    if monotone:
        return ("boosting",)
    fitting = [name for name in FAMILIES if name != "network" or NETWORK_ROWS[0] <= rows <= NETWORK_ROWS[1]]
    return tuple(named or fitting)


def _rounded(value: float) -> float:
    """Two significant digits: people read them in case.yaml."""
    return round(value, 1 - math.floor(math.log10(value)))
