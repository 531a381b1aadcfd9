"""Build an unfitted scikit-learn pipeline from a case, and refuse what can't work before any data is read."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CaseError
from tasks.features.results import Column
from tasks.train.compat import validate_parameters
from tasks.train.config import Train

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from tasks.train.tabular.ensemble import Ensemble

# Parameters that other keys of the case set.
MANAGED_PARAMETERS = {"random_state": "train.seed", "n_jobs": "train.threads"}

# A service meets values that training did not; by default these encoders would refuse them.
LENIENT_DEFAULTS: dict[str, dict[str, Any]] = {
    "OneHotEncoder": {"handle_unknown": "ignore"},
    "OrdinalEncoder": {"handle_unknown": "use_encoded_value", "unknown_value": float("nan")},
}
OWN_ENCODERS = {
    f"driftline.{name}": f"tasks.train.tabular.encoders.{name}" for name in ("DateParts", "CharacterNgrams")
}


def check_training(config: Train, task: str, columns: Sequence[Column] | None = None) -> None:
    """Check families, parameters and, with `columns`, their encoders.

    Raises: CaseError naming what was found and what is allowed.
    """
    build_pipeline(config, task, columns)


def build_pipeline(config: Train, task: str, columns: Sequence[Column] | None) -> Pipeline | Ensemble:
    """Build the pipeline, or an ensemble of several.

    Raises: CaseError.
    """
    from tasks.train.tabular.ensemble import Ensemble

    if not config.ensemble:
        return _build_one(config, task, columns)
    pipelines = [_build_one(member, task, columns) for member in config.members]
    return Ensemble(pipelines, [member.weight for member in config.members])


def _build_one(config: Train, task: str, columns: Sequence[Column] | None) -> Pipeline:
    """Build one pipeline: encoded columns first, in the encoders' order, then the others as they are.

    A column that several encoders name goes through them one after the other (an imputer, then a scaler).

    Raises: CaseError.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.utils import get_tags

    from tasks.train.tabular.encoders import TextColumn

    encoders = [
        _build_estimator(encoder.family, encoder.parameters, f"train.encoders[{i}]", config, "encoder")
        for i, encoder in enumerate(config.encoders)
    ]
    for encoder in encoders:
        if type(encoder).__name__ == "TargetEncoder":
            _cross_fit(encoder, task, config.seed)
    groups = _groups(config, columns) if columns is not None else {}
    parameters = dict(config.parameters)
    categorical = parameters.get("categorical_features")
    if columns is not None and isinstance(categorical, list | tuple) and any(isinstance(c, str) for c in categorical):
        parameters["categorical_features"] = _positions(categorical, groups, encoders, "categorical_features")
    if columns is not None and isinstance(parameters.get("monotonic_cst"), dict):
        parameters["monotonic_cst"] = _directions(parameters["monotonic_cst"], groups, encoders)
    estimator = _build_estimator(config.family, parameters, "train", config, task)
    if config.target_transform:
        estimator = _with_target_transform(estimator, task)
    if config.calibration:
        estimator = _with_calibration(estimator, task, config)

    transformers: list[tuple[str, Any, list[str]]] = []
    for (chain, kind), names in groups.items():
        steps = [encoders[i] for i in chain]
        takes_text = bool(steps) and _takes_text(steps[0])
        label = "-".join(type(s).__name__.lower() for s in steps) or "rest"
        if takes_text:
            steps = [TextColumn(), *steps]
        step = make_pipeline(*steps) if len(steps) > 1 else (steps[0] if steps else "passthrough")
        for members in [[name] for name in names] if takes_text else [names]:
            transformers.append((f"{label}-{kind}-{len(transformers)}", step, members))
    sparse = 0.3 if get_tags(estimator).input_tags.sparse else 0.0
    encoding = ColumnTransformer(transformers, sparse_threshold=sparse, verbose_feature_names_out=False)
    return Pipeline([("columns", encoding), ("model", estimator)])


def _cross_fit(encoder: Any, task: str, seed: int) -> None:
    """Let a TargetEncoder encode each training row by the targets of the other folds.

    By its own guess, a regression's target of whole numbers would be classes.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    folds = StratifiedKFold if task == "classification" else KFold
    if isinstance(encoder.cv, int):
        encoder.set_params(cv=folds(encoder.cv, shuffle=True, random_state=seed))
    if task == "regression" and encoder.target_type == "auto":
        encoder.set_params(target_type="continuous")


def _with_target_transform(estimator: Any, task: str) -> Any:
    import numpy as np
    from sklearn.compose import TransformedTargetRegressor

    if task != "regression":
        raise CaseError(
            "Only a regression's target can be transformed.",
            where="train.target_transform",
            found=f"target.task {task}",
            todo="Remove target_transform.",
        )
    return TransformedTargetRegressor(estimator, func=np.log1p, inverse_func=np.expm1)


def _with_calibration(estimator: Any, task: str, config: Train) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold

    if task != "classification":
        raise CaseError(
            "Only a classification has probabilities to calibrate.",
            where="train.calibration",
            found=f"target.task {task}",
            todo="Remove calibration.",
        )
    folds = StratifiedKFold(5, shuffle=True, random_state=config.seed)
    return CalibratedClassifierCV(estimator, method=config.calibration, cv=folds, ensemble=False)


def _takes_text(encoder: Any) -> bool:
    """Whether it is a vectorizer, which takes one column as a sequence of texts."""
    from sklearn.utils import get_tags

    tags = get_tags(encoder).input_tags
    return bool(tags.string and not tags.two_d_array)


def _groups(config: Train, columns: Sequence[Column]) -> dict[tuple[tuple[int, ...], str], list[str]]:
    """Columns by the encoders they go through and their kind; the unencoded ones come last."""
    kinds = {column.name: column.kind for column in columns}
    chains: dict[str, tuple[int, ...]] = {}
    for i, encoder in enumerate(config.encoders):
        for name in encoder.columns:
            if name not in kinds:
                raise CaseError(
                    f"An encoder names a column that is no feature: {name}.",
                    where=f"train.encoders[{i}].columns",
                    found=name,
                    allowed=", ".join(kinds) or "no features at all",
                    todo=_nearest(name, kinds) or "Name a feature of the case, or add it under features.",
                )
            chains[name] = (*chains.get(name, ()), i)
    bare = [name for name, kind in kinds.items() if kind == "text" and name not in chains]
    if bare:
        raise CaseError(
            f"Text columns without an encoder: {', '.join(bare)}.",
            where="train.encoders",
            found=f"encoders for {', '.join(chains) or 'no column'}",
            allowed="an encoder for every text column",
            todo="Add an encoder for them, such as sklearn.preprocessing.OrdinalEncoder.",
        )
    groups: dict[tuple[tuple[int, ...], str], list[str]] = {}
    for name in [*chains, *(name for name in kinds if name not in chains)]:
        groups.setdefault((chains.get(name, ()), kinds[name]), []).append(name)
    return groups


def _directions(
    named: dict[str, Any], groups: dict[tuple[tuple[int, ...], str], list[str]], encoders: list[Any]
) -> list[int]:
    """A direction for each column after encoding (1, -1, or 0 where none is named), for estimators that take a list."""
    every = [name for members in groups.values() for name in members]
    _positions(every, groups, encoders, "monotonic_cst")  # the list has an entry for each column
    directions = [0] * len(every)
    for position, direction in zip(
        _positions([*named], groups, encoders, "monotonic_cst"), named.values(), strict=True
    ):
        directions[position] = int(direction)
    return directions


def _positions(
    names: Sequence[Any], groups: dict[tuple[tuple[int, ...], str], list[str]], encoders: list[Any], key: str
) -> list[int]:
    """The positions of named columns after encoding, for estimators that take positions."""
    from sklearn.base import OneToOneFeatureMixin

    positions: dict[str, int] = {}
    for (chain, _), members in groups.items():
        if not all(isinstance(encoders[i], OneToOneFeatureMixin) for i in chain):
            break  # the number of columns of this encoder is known only after fitting
        for name in members:
            positions[name] = len(positions)
    unknown = [str(name) for name in names if name not in positions]
    if unknown:
        raise CaseError(
            f"{key} names columns without a fixed position: {', '.join(unknown)}.",
            where=f"train.parameters.{key}",
            found=", ".join(map(str, names)),
            allowed=", ".join(positions) or "none",
            todo="Name features that are encoded one to one (such as with OrdinalEncoder).",
        )
    return [positions[name] for name in names]


def _build_estimator(family: str, parameters: dict[str, Any], where: str, config: Train, role: str) -> Any:
    """Build one estimator with the case's parameters, its seed and its threads."""
    kind = _class_of(OWN_ENCODERS.get(family, family), where)
    _check_role(kind, family, where, role)
    accepted = inspect.signature(kind).parameters
    allowed = [name for name in accepted if name not in MANAGED_PARAMETERS]
    for name in parameters:
        if name in MANAGED_PARAMETERS:
            raise CaseError(
                f"{name} is set by another key.",
                where=f"{where}.parameters",
                found=name,
                todo=f"Set {MANAGED_PARAMETERS[name]} instead.",
            )
        if name not in allowed:
            raise CaseError(
                f"{kind.__name__} has no parameter {name}.",
                where=f"{where}.parameters",
                found=name,
                allowed=", ".join(allowed) or "none",
                todo=_nearest(name, allowed) or "Remove it, or take one of the allowed ones.",
            )
    values = {k: _value(v, accepted[k].default) for k, v in parameters.items()}
    values = {**LENIENT_DEFAULTS.get(kind.__name__, {}), **values}
    if values.get("handle_unknown") == "error":
        values.pop("unknown_value", None)
    if "random_state" in accepted and kind.__name__ != "TargetEncoder":  # deprecated there
        values["random_state"] = config.seed
    if "n_jobs" in accepted and role != "encoder" and not family.startswith("sklearn.linear_model."):  # has no effect
        values["n_jobs"] = config.threads
    try:
        estimator = kind(**values)
        validate_parameters(estimator)
    except (TypeError, ValueError) as error:
        raise CaseError(
            f"{kind.__name__} can't be built with these parameters.",
            where=f"{where}.parameters",
            found=str(error).split("\n")[0],
            allowed=", ".join(allowed) or "none",
            todo="Correct the value; scikit-learn's page of the class lists what each parameter takes.",
        ) from error
    if role == "classification" and not hasattr(estimator, "predict_proba"):
        raise CaseError(
            f"{kind.__name__} gives no probabilities with these parameters.",
            where=f"{where}.family",
            found=family,
            allowed="classifiers with predict_proba",
            todo="Take another family, such as sklearn.ensemble.HistGradientBoostingClassifier.",
        )
    return estimator


def _class_of(family: str, where: str) -> type:
    module_name, _, name = family.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise CaseError(
            f"There is no module {module_name}.",
            where=f"{where}.family",
            found=family,
            allowed="a class of scikit-learn, such as sklearn.ensemble.HistGradientBoostingClassifier",
            todo="Correct the path.",
        ) from error
    found = getattr(module, name, None)
    if not inspect.isclass(found) or not hasattr(found, "fit"):
        public = [n for n in getattr(module, "__all__", dir(module)) if hasattr(getattr(module, n, None), "fit")]
        raise CaseError(
            f"{module_name} has no estimator {name}.",
            where=f"{where}.family",
            found=family,
            allowed=", ".join(sorted(public)) or "none in this module",
            todo=_nearest(name, public) or "Take one of the allowed ones.",
        )
    return found


def _check_role(kind: type, family: str, where: str, role: str) -> None:
    from sklearn.base import ClassifierMixin, RegressorMixin

    fits, what = {
        "classification": (issubclass(kind, ClassifierMixin), "a classifier"),
        "regression": (issubclass(kind, RegressorMixin), "a regressor"),
        "encoder": (hasattr(kind, "transform"), "a transformer"),
    }[role]
    if not fits:
        raise CaseError(
            f"{kind.__name__} is not {what}.",
            where=f"{where}.family",
            found=family,
            allowed=what + (f", since the case's task is {role}" if role != "encoder" else ""),
            todo="Take another family, or correct target.task.",
        )


def _value(value: Any, default: Any) -> Any:
    """The text 'nan' is the number, and a list where the default is a tuple is one: JSON has neither."""
    if isinstance(value, list) and isinstance(default, tuple):
        return tuple(value)
    return float("nan") if isinstance(value, str) and value == "nan" else value


def _nearest(name: str, among: Any) -> str:
    near = difflib.get_close_matches(str(name), [str(n) for n in among], n=1)
    return f"Did you mean {near[0]}?" if near else ""
