"""Import a scikit-learn model instead of training one: check it, convert it, and store it as a candidate.

Its training data is unknown; it is evaluated, sealed and served like a trained model.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.core.files import scratch_folder
from tasks.core.untrusted import MB, reading_untrusted
from tasks.features.results import Column, Frame
from tasks.train.classes import Classes, infer_classes, normalize_label
from tasks.train.config import Target, Train
from tasks.train.results import Candidate, Origin
from tasks.train.tabular.fit import Sides, TrainingJob, store_candidate
from tasks.train.tabular.model_file import Model, load, predict, read, save
from tasks.train.tabular.scoring import typed_frame
from tasks.train.tabular.skops_archive import MAX_BYTES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SKOPS = ".skops"
TOLERANCE = 1e-6
SUPPORTED = "an estimator on numbers, or a pipeline of a ColumnTransformer (columns by name) and further steps"
TODO = "Import a supported model; the champion stays."


def import_model(
    origin: Origin, path: Path, frame: Frame, target: Target, config: Train, trusted: Collection[str]
) -> Candidate:
    """Store a scikit-learn model as a candidate, or return the existing one of equal file and inputs.

    `trusted`: digests of pickles that may be loaded. Raises: DataError when the file is refused, can't be stored as
    skops, or holds a model that does not take the case's columns.
    """
    import pandas as pd

    content = _read_content(path)
    digest = hashlib.sha256(content).hexdigest()
    job = TrainingJob(origin, frame, target, config, imported=digest, module=__name__)
    if (existing := job.load_existing()) is not None:
        return existing
    imported = read(path) if path.suffix == SKOPS else _unpickle(path, content, digest, trusted)
    sides = job.split()
    values = pd.concat([side[target.column] for side in sides])
    classes = infer_classes(values, target) if target.task == "classification" else ()
    names = _column_names(imported, frame.columns, classes, path)
    columns = [column for name in names for column in frame.columns if column.name == name]
    expected = _original_predictions(imported, sides.holdout, columns, classes, path)
    with scratch_folder(origin.state / "candidates") as work:
        with reading_untrusted("The model can't be converted for serving.", path, allowed=SUPPORTED, todo=TODO):
            pipeline = _convert(imported, names, frame.columns, classes)
        model = _save_and_load(pipeline, Path(work) / "model.skops", path)
        with reading_untrusted("The converted model does not predict.", path, allowed=SUPPORTED, todo=TODO):
            predictions = predict(model, sides.holdout)
    _check_equal(predictions, expected, path)
    parameters = {"imported": digest, "file": path.name, "type": type(imported).__name__}
    no_training = Sides(sides.holdout.head(0), sides.holdout)
    return store_candidate(job, no_training, lambda: model, parameters)


def _read_content(path: Path) -> bytes:
    """Read the file once, so that the hashed bytes are the loaded ones."""
    allowed = f"a {SKOPS} file of a scikit-learn model, of at most {MAX_BYTES // MB:,} MB"
    with reading_untrusted("The model can't be read.", path, allowed=allowed, todo=TODO):
        if path.exists() and not path.is_file():  # a device or a pipe may never end
            raise ValueError("no file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size:,} bytes")
        return path.read_bytes()


def _unpickle(path: Path, content: bytes, digest: str, trusted: Collection[str]) -> Any:
    if digest not in trusted:
        raise DataError(
            "The model is a pickle or an unknown format: reading it could run code. It was not read.",
            where=str(path),
            found=f"{path.name}, sha256 {digest}",
            allowed=f"a {SKOPS} file, or a file whose sha256 is listed under trusted in the case",
            todo=f"Write it with skops.io.dump(model, 'model{SKOPS}') where it was trained. If you trust its "
            "origin and its code, add the sha256 to trusted in case.yaml.",
        )
    import joblib

    try:
        return joblib.load(io.BytesIO(content))
    except Exception as error:  # a pickle may raise anything
        found = f"{type(error).__name__}: {error}"
        raise unsupported_model_error(
            "The trusted pickle can't be read.", path, found, "a model of this scikit-learn"
        ) from error


def _column_names(imported: Any, columns: Sequence[Column], classes: Classes, path: Path) -> list[str]:
    """The columns that a model takes, in its order.

    Raises: DataError when it is not a fitted model for this task, or takes columns that the case does not have.
    """
    known_classes = getattr(imported, "classes_", None)
    is_regressor = hasattr(imported, "predict") and known_classes is None
    if not (_has_classes(imported, known_classes, classes) if classes else is_regressor):
        found = type(imported).__name__
        found += "" if known_classes is None else f" of the classes {list(known_classes)[:10]}"
        allowed = f"a classifier with predict_proba and the classes {', '.join(map(str, classes))}"
        task = "classification" if classes else "regression"
        raise unsupported_model_error(
            f"The model does not fit the task {task}.", path, found, allowed if classes else "a regressor"
        )
    names = [str(name) for name in getattr(imported, "feature_names_in_", ())]
    known = {column.name: column.kind for column in columns}
    if lacking := [name for name in names if name not in known]:
        found = f"takes {', '.join(lacking)}"
        raise unsupported_model_error(
            "The model takes columns that the case does not have.", path, found, ", ".join(known)
        )
    if not names:
        raise unsupported_model_error(
            "The model does not say which columns it takes.", path, "no feature_names_in_", "a fit on a DataFrame"
        )
    return names


def _has_classes(imported: Any, known_classes: Any, classes: Classes) -> bool:
    """Whether a classifier has exactly the case's classes."""
    try:
        return hasattr(imported, "predict_proba") and sorted(map(normalize_label, known_classes)) == sorted(classes)
    except (TypeError, ValueError):  # None, or of another type
        return False


def _original_predictions(
    imported: Any, holdout: pd.DataFrame, columns: Sequence[Column], classes: Classes, path: Path
) -> np.ndarray:
    """The predictions of the model before its conversion."""
    import numpy as np

    values = typed_frame(holdout, columns, len(holdout))
    try:
        if classes:
            scores = np.asarray(imported.predict_proba(values), np.float64)
            if len(classes) > 2:
                return scores
            return scores[:, [normalize_label(label) for label in imported.classes_].index(classes[-1])]
        return np.asarray(imported.predict(values), np.float64).reshape(-1)
    except Exception as error:  # a foreign model may raise anything
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        taken = ", ".join(f"{column.name} ({column.kind})" for column in columns)
        raise unsupported_model_error("The model does not take the case's columns.", path, found, taken) from error


def _convert(imported: Any, names: list[str], columns: Sequence[Column], classes: Classes) -> Any:
    """A pipeline of one encoding and one estimator, which `scoring.prepare` requires."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    from tasks.train.tabular.encoders import TextColumn

    steps = list(imported.steps) if isinstance(imported, Pipeline) else [("model", imported)]
    if len(steps) > 1 and isinstance(steps[0][1], ColumnTransformer):
        (_, encoding), *steps = steps
        encoding.transformers_ = [
            (name, Pipeline([("text", TextColumn()), ("vectorizer", step)]), [column])
            if isinstance(column, str)  # one column as a sequence of texts
            else (name, step, column)
            for name, step, column in encoding.transformers_
        ]
    else:  # one encoding of all columns: the fitted steps before the estimator
        encoding = ColumnTransformer([("all", "passthrough", names)], verbose_feature_names_out=False)
        encoding.fit(pd.DataFrame([dict.fromkeys(names, 0.0)]))
        if len(steps) > 1:
            encoding.transformers_ = [("all", Pipeline(steps[:-1]), names)]
        steps = steps[-1:]
    estimator, last = (steps[0][1] if len(steps) == 1 else Pipeline(steps)), steps[-1][1]
    for _, step in steps:
        getattr(step, "__dict__", {}).pop("feature_names_in_", None)  # it gets plain arrays and would warn
    if "n_jobs" in last.get_params():
        last.set_params(n_jobs=None)  # as in `fit`
    pipeline = Pipeline([("columns", encoding), ("model", estimator)])
    pipeline.columns_ = [column.model_dump(mode="json") for column in columns]
    if list(classes) != sorted(classes):
        pipeline.positive_ = classes[-1]
    return pipeline


def _save_and_load(pipeline: Any, file: Path, path: Path) -> Model:
    """Store the model as a file of trusted types and load it, as evaluation and serving do."""
    try:
        save(pipeline, file)
        return load(file)
    except Exception as error:  # its parts may raise anything too
        found = error.found if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        raise unsupported_model_error(
            "The model can't be stored as skops.", path, found, "types that tasks/train/compat.py lists"
        ) from error


def _check_equal(predictions: np.ndarray, expected: np.ndarray, path: Path) -> None:
    import numpy as np

    if not np.allclose(predictions, expected, rtol=TOLERANCE, atol=TOLERANCE):
        difference = float(np.abs(predictions - expected).max())
        raise unsupported_model_error(
            "The converted model predicts other values.",
            path,
            f"predictions differ by up to {difference:.3g}",
            SUPPORTED,
        )


def unsupported_model_error(what: str, where: Path, found: str, allowed: str) -> DataError:
    return DataError(what, where=str(where), found=found, allowed=allowed, todo=TODO)
