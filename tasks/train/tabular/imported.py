"""A scikit-learn model made elsewhere, in place of training: checked, put into our form, and kept as a candidate.

What it learned from, nobody here knows; it is judged, sealed and served like one that was trained here.
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
from tasks.train.classes import Classes, classes_in, label_of
from tasks.train.config import Target, Train
from tasks.train.results import Candidate, Origin
from tasks.train.tabular.fit import Job, keep
from tasks.train.tabular.model_file import Model, load, predict, read, save
from tasks.train.tabular.scoring import block_of
from tasks.train.tabular.skops_archive import MOST

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SKOPS = ".skops"
CLOSE = 1e-6
FORM = "an estimator on numbers, or a pipeline of a ColumnTransformer (columns by name) and what follows it"
TODO = "Bring a model that fits; the champion stays as it is."


def import_model(
    origin: Origin, path: Path, frame: Frame, target: Target, config: Train, trusted: Collection[str]
) -> Candidate:
    """Keep a scikit-learn model as a candidate, or give the one that the same file and inputs made before.

    `trusted` are digests of pickles that may be run. Raises: DataError when the file is refused, can't be kept as
    skops, or holds a model that does not take the case's columns.
    """
    import pandas as pd

    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    job = Job(origin, frame, target, config, imported=digest, module=__name__)
    if (found := job.made_before()) is not None:
        return found
    made = read(path) if path.suffix == SKOPS else _unpickled(path, content, digest, trusted)
    learn, held = job.sides()
    values = pd.concat([learn[target.column], held[target.column]])
    classes = classes_in(values, target) if target.task == "classification" else ()
    names = _columns_of(made, frame.columns, classes, path)
    asked = [column for name in names for column in frame.columns if column.name == name]
    expected = _asked(made, held, asked, classes, path)
    with scratch_folder(origin.state / "candidates") as work:
        with reading_untrusted("The model can't be put into the form that is served.", path, allowed=FORM, todo=TODO):
            pipeline = _in_our_form(made, names, frame.columns, classes)
        model = _as_file(pipeline, Path(work) / "model.skops", path)
        with reading_untrusted("The model does not answer in the form that is served.", path, allowed=FORM, todo=TODO):
            answers = predict(model, held)
    _check_same(answers, expected, path)
    told = {"imported": digest, "file": path.name, "type": type(made).__name__}
    return keep(job, held.head(0), held, lambda: model, told)


def _content(path: Path) -> bytes:
    """The file, read once: what is opened is what was hashed."""
    allowed = f"a {SKOPS} file of a scikit-learn model, of at most {MOST // MB:,} MB"
    with reading_untrusted("The model can't be read.", path, allowed=allowed, todo=TODO):
        if path.exists() and not path.is_file():  # a device or a pipe has no end
            raise ValueError("no file")
        if (size := path.stat().st_size) > MOST:
            raise ValueError(f"{size:,} bytes")
        return path.read_bytes()


def _unpickled(path: Path, content: bytes, digest: str, trusted: Collection[str]) -> Any:
    if digest not in trusted:
        raise DataError(
            "The model is a pickle, or of a kind we don't know: reading it could run code. It was not read.",
            where=str(path),
            found=f"{path.name}, sha256 {digest}",
            allowed=f"a {SKOPS} file, or one whose sha256 stands in the case's trusted",
            todo=f"Write it with skops.io.dump(model, 'model{SKOPS}') where it was made. If you know its origin, "
            "and would run its code, add the sha256 to trusted in case.yaml.",
        )
    import joblib

    try:
        return joblib.load(io.BytesIO(content))
    except Exception as error:  # a pickle may raise whatever it likes
        found = f"{type(error).__name__}: {error}"
        raise unsupported_model_error(
            "The trusted pickle can't be read.", path, found, "a model of this scikit-learn"
        ) from error


def _columns_of(made: Any, columns: Sequence[Column], classes: Classes, path: Path) -> list[str]:
    """The columns that a model takes, in its order.

    Raises: DataError when it is no fitted model for this task, or takes what the case does not have.
    """
    theirs = getattr(made, "classes_", None)
    if not (_has_classes(made, theirs, classes) if classes else hasattr(made, "predict") and theirs is None):
        found = type(made).__name__ + ("" if theirs is None else f" of the classes {list(theirs)[:10]}")
        allowed = f"a classifier with predict_proba and the classes {', '.join(map(str, classes))}"
        task = "classification" if classes else "regression"
        raise unsupported_model_error(
            f"The model does not fit the task {task}.", path, found, allowed if classes else "a regressor"
        )
    names = [str(name) for name in getattr(made, "feature_names_in_", ())]
    known = {column.name: column.kind for column in columns}
    if lacking := [name for name in names if name not in known]:
        found = f"asks for {', '.join(lacking)}"
        raise unsupported_model_error(
            "The model takes columns that the case does not have.", path, found, ", ".join(known)
        )
    if not names:
        raise unsupported_model_error(
            "The model does not say which columns it takes.", path, "no feature_names_in_", "a fit on a DataFrame"
        )
    return names


def _has_classes(made: Any, theirs: Any, classes: Classes) -> bool:
    """Whether a classifier knows just the case's classes."""
    try:
        return hasattr(made, "predict_proba") and sorted(map(label_of, theirs)) == sorted(classes)
    except (TypeError, ValueError):  # none, or of another kind
        return False


def _asked(made: Any, held: pd.DataFrame, columns: Sequence[Column], classes: Classes, path: Path) -> np.ndarray:
    """What the model itself answers for the hold-out."""
    import numpy as np
    import pandas as pd

    values = pd.DataFrame({column.name: block_of(held, [column], len(held))[:, 0] for column in columns})
    try:
        if classes:
            told = np.asarray(made.predict_proba(values), np.float64)
            return (
                told if len(classes) > 2 else told[:, [label_of(label) for label in made.classes_].index(classes[-1])]
            )
        return np.asarray(made.predict(values), np.float64).reshape(-1)
    except Exception as error:  # a stranger's model may raise whatever it comes to
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        taken = ", ".join(f"{column.name} ({column.kind})" for column in columns)
        raise unsupported_model_error("The model does not take the case's columns.", path, found, taken) from error


def _in_our_form(made: Any, names: list[str], columns: Sequence[Column], classes: Classes) -> Any:
    """An encoding of named columns and one estimator, which is how rows are answered fast."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    steps = list(made.steps) if isinstance(made, Pipeline) else [("model", made)]
    if len(steps) > 1 and isinstance(steps[0][1], ColumnTransformer):
        (_, encoding), *steps = steps
    else:  # one encoding of all columns: what stands before the estimator, fitted as it is
        encoding = ColumnTransformer([("all", "passthrough", names)], verbose_feature_names_out=False)
        encoding.fit(pd.DataFrame([dict.fromkeys(names, 0.0)]))
        if len(steps) > 1:
            encoding.transformers_ = [("all", Pipeline(steps[:-1]), names)]
        steps = steps[-1:]
    estimator, last = (steps[0][1] if len(steps) == 1 else Pipeline(steps)), steps[-1][1]
    for _, step in steps:
        getattr(step, "__dict__", {}).pop("feature_names_in_", None)  # it is given plain arrays, and would warn of it
    if "n_jobs" in last.get_params():
        last.set_params(n_jobs=None)  # as in fitting here: one row is faster without, and sums keep their order
    pipeline = Pipeline([("columns", encoding), ("model", estimator)])
    pipeline.columns_ = [column.model_dump(mode="json") for column in columns]
    if list(classes) != sorted(classes):
        pipeline.positive_ = classes[-1]
    return pipeline


def _as_file(pipeline: Any, file: Path, path: Path) -> Model:
    """What is judged and served is a file of types on our list, whatever it came from."""
    try:
        save(pipeline, file)
        return load(file)
    except Exception as error:  # so may its parts
        found = error.found if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        raise unsupported_model_error(
            "The model can't be kept as skops.", path, found, "types that tasks/train/tabular/model_file.py lists"
        ) from error


def _check_same(answers: np.ndarray, expected: np.ndarray, path: Path) -> None:
    import numpy as np

    if not np.allclose(answers, expected, rtol=CLOSE, atol=CLOSE):
        apart = float(np.abs(answers - expected).max())
        raise unsupported_model_error(
            "In the form in which models are served here, the model would answer otherwise.",
            path,
            f"answers differ by up to {apart:.3g}",
            FORM,
        )


def unsupported_model_error(what: str, where: Path, found: str, allowed: str) -> DataError:
    return DataError(what, where=str(where), found=found, allowed=allowed, todo=TODO)
