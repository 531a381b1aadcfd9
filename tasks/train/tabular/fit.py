"""Train a scikit-learn pipeline as a case declares it; equal inputs and seed give equal weights, bit by bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.core.code_digest import cache_key
from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.core.mlflow import log_batch
from tasks.features.results import Column, Frame
from tasks.train.candidates import CandidateBuilder, CandidateRun
from tasks.train.classes import MIN_CLASS_EXAMPLES, encode_target, infer_classes, score_columns, target_labels
from tasks.train.config import Target, Train
from tasks.train.metrics import compute_metrics
from tasks.train.mlflow_logging import log_frame, log_model
from tasks.train.results import Candidate, Origin
from tasks.train.tabular.ensemble import copy_description, inner_estimator, pipelines_of, remove_threads
from tasks.train.tabular.importance import draw, importance
from tasks.train.tabular.mitigation import (
    check_mitigation,
    fit_mixture,
    in_pipelines,
    with_thresholds,
)
from tasks.train.tabular.model_file import Model, load, predict, save
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.reweighing import balancing_weights
from tasks.train.tabular.scoring import prepare, thread_pools, typed_frame
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


UNMITIGATED = "unmitigated.skops"  # the same model without its mitigation; only evaluation reads it


def train(origin: Origin, frame: Frame, target: Target, config: Train) -> Candidate:
    """Fit, save and log a candidate, or return the existing one of equal inputs.

    Raises: CaseError when the declaration does not fit the data; DataError when the data can't be split or used.
    """
    job = TrainingJob(origin, frame, target, config)
    if (existing := job.load_existing()) is not None:
        return existing
    sides = job.split()
    if config.rows:
        sides = Sides(sides.train.tail(config.rows), sides.holdout)
    pipeline = build_pipeline(config, target.task, frame.columns)
    unmitigated = None
    if config.mitigation:
        plain = config.unmitigated
        unmitigated = partial(
            fit, build_pipeline(plain, target.task, frame.columns), sides.train, target, plain, frame.columns
        )
    build = partial(fit, pipeline, sides.train, target, config, frame.columns)
    return store_candidate(job, sides, build, _parameters(config), unmitigated=unmitigated)


class Sides(NamedTuple):
    """The two sides of a split."""

    train: pd.DataFrame
    holdout: pd.DataFrame


@dataclass(frozen=True)
class TrainingJob:
    """The inputs of one candidate."""

    origin: Origin
    frame: Frame
    target: Target
    config: Train
    imported: str | None = None  # SHA-256 of the imported file; None: fitted by this platform
    module: str = __name__  # its code is part of the cache key

    @cached_property
    def builder(self) -> CandidateBuilder:
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

    def load_existing(self) -> Candidate | None:
        """The existing candidate of equal inputs, or None."""
        return self.builder.load_existing(lambda folder: file_digest(folder / "model.skops"))

    def split(self) -> Sides:
        """The training and the hold-out examples."""
        examples = read_examples(self.frame, self.target, self.config.sensitive)
        return Sides(*split_frame(examples, self.config.split, self.target))


def store_candidate(
    job: TrainingJob,
    sides: Sides,
    build_model: Callable[[], Model],
    parameters: Mapping[str, Any],
    *,
    unmitigated: Callable[[], Model] | None = None,
) -> Candidate:
    """Build the model within an MLflow run, save it, and log it; `unmitigated` builds the one to compare it with.

    Raises: CaseError when it can't be stored in a model file.
    """
    builder, client = job.builder, job.builder.client
    with builder.start_run() as run:
        run_id, work = run.run_id, run.folder
        work.mkdir(parents=True)
        weights = save(build_model(), work / "model.skops")
        if unmitigated:
            save(unmitigated(), work / UNMITIGATED)
        model = _read_back(work / "model.skops", job.config)
        metrics = _describe(job, run, model, sides)
        parameters = {**parameters, **({"classes": ", ".join(map(str, model.classes))} if model.classes else {})}
        log_batch(client, run_id, params=parameters, tags={"driftline.weights_digest": weights}, metrics=metrics)
        log_frame(builder, run_id, job.frame)
        example = sides.holdout.head(3)
        log_model(builder, run_id, model, work / "model.skops", example=example, work=work / "mlflow")
        shutil.rmtree(work / "mlflow")
        counts = {"train_rows": len(sides.train), "holdout_rows": len(sides.holdout)}
        return builder.save(run, weights, job.frame.columns, without_target=job.frame.without_target, **counts)


def read_examples(frame: Frame, target: Target, more: Sequence[str] = ()) -> pd.DataFrame:
    """The frame's ids, times, features and known targets, and more of its columns.

    Raises: DataError when a classification's target holds no classes, or a regression's no numbers; CaseError.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    names = ["example_id", "event_timestamp", target.column, *(column.name for column in frame.columns), *more]
    if absent := [name for name in more if name not in pq.read_schema(frame.path).names]:
        raise CaseError(
            "The examples lack a sensitive column that train names.",
            where="train.reweigh, train.reductions or train.thresholds",
            found=", ".join(absent),
            todo="Select it in the SQL of features.examples.",
        )
    examples = pd.read_parquet(frame.path, columns=list(dict.fromkeys(names)))
    known = examples[target.column].notna()
    examples = examples if known.all() else examples[known]
    values = examples[target.column]
    if target.task == "classification":
        classes = infer_classes(values, target)
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
            "The target of a regression must be numeric.",
            where=f"column {target.column} of the frame",
            found=", ".join(map(str, values.unique()[:5])),
            allowed="a number; empty while unknown",
            todo="Correct the SQL of features.examples, or set target.task: classification.",
        )
    return examples


def fit(pipeline: Any, examples: pd.DataFrame, target: Target, config: Train, columns: Sequence[Column]) -> Model:
    """Fit a pipeline on examples with its mitigation, and prepare it for predictions.

    Raises: what `fit_pipeline` raises.
    """
    if config.thresholds:
        plain = config.unmitigated
        fit_rows = partial(_fit_anew, pipeline, target=target, config=plain, columns=columns)
        return prepare(with_thresholds(fit_rows, examples, target, config=config, columns=columns))
    return prepare(fit_pipeline(pipeline, examples, target, config, columns))


def _fit_anew(
    pipeline: Any, examples: pd.DataFrame, *, target: Target, config: Train, columns: Sequence[Column]
) -> Model:
    from sklearn.base import clone

    return fit(clone(pipeline), examples, target, config, columns)


def fit_pipeline(
    pipeline: Any, examples: pd.DataFrame, target: Target, config: Train, columns: Sequence[Column]
) -> Any:
    """Fit a pipeline, or each one of an ensemble, on examples, and return it; reductions return an ensemble.

    Raises: CaseError when the estimator can't take what the encoders leave, such as missing values; DataError when a
    class has too few examples.
    """
    if config.ensemble:
        for member, part in zip(config.members, pipeline.pipelines, strict=True):
            fit_pipeline(part, examples, target, member, columns)
        return copy_description(pipeline.pipelines[0], pipeline)

    encoding, estimator = pipeline[0], pipeline[-1]
    values = typed_frame(examples, columns, len(examples))
    known = examples[target.column]
    classes = infer_classes(known, target, MIN_CLASS_EXAMPLES) if target.task == "classification" else ()
    if config.target_transform and float(known.min()) <= -1:
        raise CaseError(
            "log1p takes no target of -1 or less.",
            where="train.target_transform",
            found=f"a smallest {target.column} of {float(known.min()):g}",
            todo="Remove target_transform, or shift the target in the SQL of features.examples.",
        )
    y: np.ndarray = target_labels(known) if classes else known.to_numpy("float64")
    check_mitigation(config, classes, columns)
    fitted = pipeline
    try:
        with thread_pools().limit(limits=config.threads):
            matrix = encoding.fit_transform(values, y)
            if not _allows_missing(estimator) and _has_missing(matrix):
                raise _takes_no_missing(estimator, values)
            if config.reductions:
                fitted = in_pipelines(pipeline, *fit_mixture(estimator, matrix, examples, (target, classes), config))
            else:
                weights = balancing_weights(examples[[*config.reweigh]], y) if config.reweigh else None
                estimator.fit(matrix, y, **({} if weights is None else {"sample_weight": weights}))
            _use_plain_integers(encoding)
    except (ValueError, TypeError) as error:
        empty = [str(name) for name in values.columns[values.isna().all()]]
        raise CaseError(
            f"{config.family} can't be fitted on this data.",
            where="train",
            found=f"no value at all of {', '.join(empty)}" if empty else str(error).split("\n")[0],
            todo="Change the family, its parameters or the encoders in the case's train section.",
        ) from error
    for part in pipelines_of(fitted):
        remove_threads(part[-1])
    pipeline.columns_ = [column.model_dump(mode="json") for column in columns]
    if list(classes) != sorted(classes):
        pipeline.positive_ = classes[-1]
    for part in (*pipelines_of(fitted), fitted):
        copy_description(pipeline, part)
    return fitted


def _use_plain_integers(encoding: Any) -> None:
    """Let a vectorizer's vocabulary hold Python's integers: a model file stores each of numpy's as an array."""
    for _, step, _ in encoding.transformers_:
        for _, part in getattr(step, "steps", ()):
            if hasattr(part, "vocabulary_"):
                part.vocabulary_ = {term: int(position) for term, position in part.vocabulary_.items()}


def _read_back(path: Path, config: Train) -> Model:
    """Read the written file: evaluation and release use the file, so a family that can't be read must fail now.

    Raises: CaseError.
    """
    try:
        return load(path)
    except DataError as error:
        raise CaseError(
            f"{config.family} or one of its encoders can't be stored in a model file.",
            where="train",
            found=error.found,
            allowed="trees, forests, boosting, linear models, naive Bayes, networks; one-to-one encoders and imputers",
            todo="Take another family or encoder; this one holds types that are not trusted.",
        ) from error


def _allows_missing(estimator: Any) -> bool:
    from sklearn.utils import get_tags

    inner = inner_estimator(estimator)
    return bool(get_tags(inner).input_tags.allow_nan) or type(inner).__module__ == "sklearn.dummy"


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


def _describe(job: TrainingJob, run: CandidateRun, model: Model, sides: Sides) -> dict[str, float]:
    """Write importance.json, log the plots, and return metrics of both sides."""
    target, config, (train, holdout) = job.target, job.config, sides
    y = encode_target(holdout[target.column], model.classes)
    with thread_pools().limit(limits=config.threads):
        answers = predict(model, holdout)
        shares = importance(model, holdout, y, config.seed)
        sample = train.sample(min(len(train), 20_000), random_state=config.seed)  # enough to see over-fitting
        fitted = (
            compute_metrics(encode_target(sample[target.column], model.classes), predict(model, sample), target.task)
            if len(sample)
            else {}
        )
    text = json.dumps(shares, indent=2)
    (run.folder / "importance.json").write_text(text, encoding="utf-8")
    artifacts = run.folder / "mlflow" / "run"
    draw(artifacts / "plots", model.classes, y, answers, shares)
    (artifacts / "importance.json").write_text(text, encoding="utf-8")
    job.builder.client.log_artifacts(run.run_id, str(artifacts))
    metrics = {f"holdout_{name}": value for name, value in compute_metrics(y, answers, target.task).items()}
    metrics |= {f"train_{name}": value for name, value in fitted.items()}
    return metrics | {"train_rows": len(train), "holdout_rows": len(holdout)}


def _parameters(config: Train) -> dict[str, Any]:
    """The declaration as MLflow parameters: one line for each of the family's own."""
    left_out = {"parameters", "encoders", "split", "ensemble", *(() if config.reweigh else ("reweigh",))}
    declared = config.model_dump(mode="json", exclude=left_out, exclude_none=True)
    declared |= {f"parameters.{name}": value for name, value in config.parameters.items()}
    declared |= {f"encoder.{i}": f"{e.family}({', '.join(e.columns)})" for i, e in enumerate(config.encoders)}
    declared |= {f"ensemble.{i}": f"{m.weight:g} {m.family}" for i, m in enumerate(config.ensemble)}
    return declared | {f"split.{k}": v for k, v in config.split.model_dump(mode="json", exclude_none=True).items()}
