"""Train a scikit-learn pipeline from a case's declaration; equal inputs and seed give equal weights, bit by bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.core.mlflow import log_batch
from tasks.features.results import Column, Frame
from tasks.train.candidates import CandidateBuilder
from tasks.train.classes import FEWEST, classes_in, labels_of, numbers_of, score_columns
from tasks.train.config import Target, Train
from tasks.train.metrics import measure
from tasks.train.mlflow_logging import log_frame, log_model
from tasks.train.results import Candidate, Origin
from tasks.train.tabular.importance import draw, importance
from tasks.train.tabular.model_file import Model, load, predict, save
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.scoring import block_of, prepare
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient


def train(origin: Origin, frame: Frame, target: Target, config: Train) -> Candidate:
    """Fit, save and log a candidate, or give the one that the same inputs made before.

    Raises: CaseError when the declaration does not fit the data; DataError when the data can't be split or learnt from.
    """
    job = Job(origin, frame, target, config)
    if (found := job.made_before()) is not None:
        return found
    learn, held = job.sides()
    learn = learn.tail(config.rows) if config.rows else learn
    pipeline = build_pipeline(config, target.task, frame.columns)
    return keep(job, learn, held, lambda: fit(pipeline, learn, target, config, frame.columns), _parameters(config))


@dataclass(frozen=True)
class Job:
    """What one candidate is made from."""

    origin: Origin
    frame: Frame
    target: Target
    config: Train
    imported: str | None = None  # SHA-256 of the file that the model comes from; None: it is fitted here
    module: str = __name__  # whose code makes it

    @cached_property
    def making(self) -> CandidateBuilder:
        frame = self.frame
        key = cache_key(
            self.module,
            {
                "case": self.origin.case,
                "imported": self.imported,
                "data": [frame.data_digest, frame.definitions_digest, frame.rows, str(frame.start), str(frame.end)],
                "columns": [(column.name, column.kind) for column in frame.columns],
                "target": self.target.digest,
                "config": self.config.digest,
            },
        )
        return CandidateBuilder(
            self.origin, key, frame.path, frame.data_digest, frame.definitions_digest, self.imported
        )

    def made_before(self) -> Candidate | None:
        """The candidate that the same inputs made."""
        return self.making.made_before(lambda made: file_digest(made / "model.skops"))

    def sides(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The examples to learn from, and those held out."""
        return split_frame(read_examples(self.frame, self.target), self.config.split, self.target)


def keep(
    job: Job, learn: pd.DataFrame, held: pd.DataFrame, make: Callable[[], Model], parameters: Mapping[str, Any]
) -> Candidate:
    """Make the model within an MLflow run, save it, and log all that is to be known of it.

    Raises: CaseError when it can't be kept in a model file.
    """
    making, client = job.making, job.making.client
    with making.begun() as (run_id, work):
        work.mkdir(parents=True)
        weights = save(make(), work / "model.skops")
        model = _read_back(work / "model.skops", job.config)
        answers = _describe(client, run_id, model, learn, held, job.target, job.config, work)
        parameters = {**parameters, **({"classes": ", ".join(map(str, model.classes))} if model.classes else {})}
        log_batch(client, run_id, params=parameters, tags={"driftline.weights_digest": weights}, metrics=answers)
        log_frame(making, run_id, job.frame)
        log_model(making, run_id, model, work / "model.skops", held.head(3), work / "mlflow")
        shutil.rmtree(work / "mlflow")
        return making.keep(run_id, work, weights, job.frame.columns, len(learn), len(held))


def read_examples(frame: Frame, target: Target) -> pd.DataFrame:
    """The frame's ids, times, features and known targets.

    Raises: DataError when a classification's target holds no classes, or a regression's no numbers; CaseError.
    """
    import pandas as pd

    names = ["example_id", "event_timestamp", target.column, *(column.name for column in frame.columns)]
    examples = pd.read_parquet(frame.path, columns=list(dict.fromkeys(names)))
    known = examples[target.column].notna()
    examples = examples if known.all() else examples[known]
    values = examples[target.column]
    if target.task == "classification":
        classes = classes_in(values, target)
        if taken := [name for name in names if len(classes) > 2 and name in score_columns(classes)]:
            raise CaseError(
                f"Features have the name of a class's score: {', '.join(taken)}.",
                where="features",
                found=f"classes {', '.join(map(str, classes))}",
                allowed="any name but score_CLASS",
                todo="Rename the feature in its SQL.",
            )
    elif not pd.api.types.is_numeric_dtype(values):
        raise DataError(
            "The target of a regression must be a number.",
            where=f"column {target.column} of the frame",
            found=", ".join(map(str, values.unique()[:5])),
            allowed="a number; empty while unknown",
            todo="Correct the SQL of features.examples, or set target.task: classification.",
        )
    return examples


def fit(pipeline: Any, examples: pd.DataFrame, target: Target, config: Train, columns: Sequence[Column]) -> Model:
    """Fit a pipeline on examples.

    Raises: CaseError when the estimator can't take what the encoders leave, such as missing values; DataError when a
    class has too few examples.
    """
    import pandas as pd
    from sklearn.utils import get_tags
    from threadpoolctl import threadpool_limits

    encoding, estimator = pipeline[0], pipeline[-1]
    values = pd.DataFrame({column.name: block_of(examples, [column], len(examples))[:, 0] for column in columns})
    known = examples[target.column]
    classes = classes_in(known, target, FEWEST) if target.task == "classification" else ()
    y: np.ndarray = labels_of(known) if classes else known.to_numpy("float64")
    try:
        with threadpool_limits(config.threads):
            matrix = encoding.fit_transform(values, y)
            if not get_tags(estimator).input_tags.allow_nan and _has_missing(matrix):
                raise _takes_no_missing(estimator, values)
            estimator.fit(matrix, y)
    except (ValueError, TypeError) as error:
        raise CaseError(
            f"{config.family} can't be fitted on this data.",
            where="train",
            found=str(error).split("\n")[0],
            todo="Change the family, its parameters or the encoders in the case's train section.",
        ) from error
    if "n_jobs" in estimator.get_params():
        # threads add up their trees' votes in the order they finish, and one row is faster without them
        estimator.set_params(n_jobs=None)
    pipeline.columns_ = [column.model_dump(mode="json") for column in columns]
    if list(classes) != sorted(classes):
        pipeline.positive_ = classes[-1]
    return prepare(pipeline)


def _read_back(path: Path, config: Train) -> Model:
    """What is described, judged and released is the file; so a family that can't be read fails here, not later.

    Raises: CaseError.
    """
    try:
        return load(path)
    except DataError as error:
        raise CaseError(
            f"{config.family} or one of its encoders can't be kept in a model file.",
            where="train",
            found=error.found,
            allowed="trees, forests, boosting, linear models, naive Bayes, networks; one-to-one encoders and imputers",
            todo="Take another family or encoder: these are made of types that may not be read without trusting them.",
        ) from error


def _has_missing(matrix: Any) -> bool:
    import numpy as np

    values = matrix.data if hasattr(matrix, "toarray") else matrix
    return bool(np.isnan(values).any())


def _takes_no_missing(estimator: Any, values: pd.DataFrame) -> CaseError:
    gaps = values.isna().mean()
    return CaseError(
        f"{type(estimator).__name__} takes no missing values.",
        where="train.encoders",
        found=", ".join(f"{name} ({share:.1%} missing)" for name, share in gaps[gaps > 0].items()),
        allowed="columns without gaps, or an encoder that fills them",
        todo="Add an encoder sklearn.impute.SimpleImputer for these columns, or take a family that accepts gaps.",
    )


def _describe(
    client: MlflowClient,
    run_id: str,
    model: Model,
    learn: pd.DataFrame,
    held: pd.DataFrame,
    target: Target,
    config: Train,
    work: Path,
) -> dict[str, float]:
    """Write importance.json, log the pictures, and give quick metrics of both sides."""
    from threadpoolctl import threadpool_limits

    y = numbers_of(held[target.column], model.classes)
    with threadpool_limits(config.threads):
        answers = predict(model, held)
        shares = importance(model, held, y, config.seed)
        some = learn.sample(min(len(learn), 20_000), random_state=config.seed)  # to see over-fitting, that is enough
        fitted = (
            measure(numbers_of(some[target.column], model.classes), predict(model, some), target.task)
            if len(some)
            else {}
        )
    text = json.dumps(shares, indent=2)
    (work / "importance.json").write_text(text, encoding="utf-8")
    pictures = work / "mlflow" / "run"
    draw(pictures / "plots", model.classes, y, answers, shares)
    (pictures / "importance.json").write_text(text, encoding="utf-8")
    client.log_artifacts(run_id, str(pictures))
    quick = {f"holdout_{name}": value for name, value in measure(y, answers, target.task).items()}
    quick |= {f"train_{name}": value for name, value in fitted.items()}
    return quick | {"train_rows": len(learn), "holdout_rows": len(held)}


def _parameters(config: Train) -> dict[str, Any]:
    """The declaration as MLflow parameters: one line for each of the family's own."""
    declared = config.model_dump(mode="json", exclude={"parameters", "encoders", "split"}, exclude_none=True)
    declared |= {f"parameters.{name}": value for name, value in config.parameters.items()}
    declared |= {f"encoder.{i}": f"{e.family}({', '.join(e.columns)})" for i, e in enumerate(config.encoders)}
    return declared | {f"split.{k}": v for k, v in config.split.model_dump(mode="json", exclude_none=True).items()}
