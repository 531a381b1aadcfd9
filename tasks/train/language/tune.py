"""Tune a language model in stages. Each stage continues from the adapter of the last; a killed run resumes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.core.code_digest import cache_key
from tasks.core.config import digest_of
from tasks.core.errors import DriftlineError
from tasks.core.files import file_digest, lock, scratch_folder
from tasks.core.mlflow import log_batch, start_run
from tasks.core.progress import progress_step
from tasks.data.results import BaseModelFiles
from tasks.language.gguf_writer import write_gguf
from tasks.language.library_noise import silence_libraries
from tasks.train.candidates import DEVICE_TAG, CandidateBuilder, CandidateRun
from tasks.train.config import Stage, Tuning
from tasks.train.language.knowledge import add_knowledge, knowledge_inputs
from tasks.train.language.mlflow_callback import MlflowReporter, log_model
from tasks.train.language.model import (
    ADAPTER,
    merge,
    read_pairs,
    supported_precision,
)
from tasks.train.language.preflight import Estimate, TuningPlan, check_fit
from tasks.train.language.run_stage import run_stage
from tasks.train.language.stage_context import StageContext, check_lengths
from tasks.train.language.time_budget import TrainingClock
from tasks.train.results import Candidate, LanguageSpec, Origin

BUDGET_SPENT = "the budget of the tuning was spent"
NO_WRONG_ANSWERS = "the model gave too few wrong answers to learn from"
STAGE_CODE = "tasks.train.language.run_stage"  # an adapter depends on this code, but not on how it is merged and packed


@dataclass(frozen=True)
class ParentRun:
    """The run of a tuning, under which its stages log their own runs."""

    builder: CandidateBuilder
    run_id: str
    device: Mapping[str, str]  # tags


@dataclass(frozen=True)
class TuningPairs:
    """Folders of pairs: of the whole case, and of those to learn from."""

    case: Path
    learned: Path

    def digest(self) -> list[str]:
        """Of what decides the adapters; documents and evaluation questions don't."""
        return [file_digest(self.learned / f"{name}.parquet") for name in ("train", "validation")]

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        folders = {"train": self.learned, "validation": self.learned, "evaluation": self.case}
        return {name: read_pairs(folder / f"{name}.parquet") for name, folder in folders.items()}


def tune(origin: Origin, pairs: TuningPairs, *, data_digest: str, spec: LanguageSpec, tuning: Tuning) -> Candidate:
    """Tune, save and log a candidate, or return the existing one of equal inputs.

    Raises: CaseError when the case can't be tuned as declared; DataError when pairs are missing or too long;
    Unavailable when there is too little memory; DriftlineError when a loss is not finite.
    """
    import torch

    precision = supported_precision(tuning.precision)
    base, serving, context_tokens = spec.base, spec.serving, spec.chat.context
    inputs = _inputs(origin, pairs, spec, tuning)
    builder, key = _builder(origin, pairs, data_digest=data_digest, spec=spec, tuning=tuning)
    if (existing := builder.load_existing(lambda folder: weights_digest(folder, base))) is not None:
        return existing

    rows = pairs.rows()
    folder = origin.state / "tuning" / origin.case
    context = StageContext(
        spec=spec,
        tuning=tuning,
        precision=precision,
        train=rows["train"],
        validation=rows["validation"],
        folder=folder,
        clock=TrainingClock(folder / f"{key[:16]}.seconds", tuning.budget),
    )
    check_lengths(context, rows, min(tuning.max_tokens, context_tokens))
    preference_pairs = sum(row["rejected"] is not None for row in context.train)
    plan = TuningPlan(base, tuning, precision, context.examples(context.train))
    estimates = check_fit(plan, serving.answer_tokens, preference_pairs)
    device = {DEVICE_TAG: torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    with (
        lock(folder / "lock", f"The tuning of {origin.case}"),
        silence_libraries(tuning.threads),
        builder.start_run(device) as started,
    ):
        parent = ParentRun(builder, started.run_id, device)
        params = _parameters(tuning, precision, base)
        log_batch(builder.client, started.run_id, params=params, metrics=_estimate_metrics(estimates))
        builder.log_dataset(started.run_id, {"num_rows": len(context.train)})
        adapter: Path | None = None
        for name, stage in tuning.stages:
            if stage is not None:
                stage_key = cache_key(STAGE_CODE, [inputs, tuning.up_to(name).digest])  # equal first stages share it
                stage_context = replace(context, folder=folder / stage_key[:16])
                adapter = _run_stage(name, stage, stage_context, start=adapter, parent=parent, key=stage_key)
        spent = context.clock.seconds
        price = tuning.budget.price_per_hour if tuning.budget else 0.0
        cost = {"cost": spent / 3600 * price} if price else {}
        log_batch(builder.client, started.run_id, metrics={"minutes": spent / 60} | cost)
        if adapter is None:
            raise DriftlineError(
                "No stage of the tuning left an adapter.", where="train.stages", todo="Declare stage sft."
            )
        counts = {"train_rows": len(context.train), "holdout_rows": len(rows["evaluation"])}
        candidate = store_candidate(builder, started, adapter, spec, **counts)
    context.clock.forget()
    for checkpoint in folder.glob("*/*/checkpoint-*"):  # adapters stay: a tuning with a further stage starts there
        shutil.rmtree(checkpoint)
    return candidate


def find_tuned(
    origin: Origin, pairs: TuningPairs, *, data_digest: str, spec: LanguageSpec, tuning: Tuning
) -> Candidate | None:
    """The candidate that `tune` would return at once; None when it would tune."""
    builder, _ = _builder(origin, pairs, data_digest=data_digest, spec=spec, tuning=tuning)
    return builder.load_existing(lambda folder: weights_digest(folder, spec.base))


def _builder(
    origin: Origin, pairs: TuningPairs, *, data_digest: str, spec: LanguageSpec, tuning: Tuning
) -> tuple[CandidateBuilder, str]:
    """What builds a candidate of these inputs, and its key."""
    inputs = _inputs(origin, pairs, spec, tuning)
    key = cache_key(__name__, [inputs, data_digest, tuning.digest, spec.serving.digest, knowledge_inputs(spec)])
    return CandidateBuilder(origin, key, pairs.case, data_digest, spec.definitions_digest), key


def _inputs(origin: Origin, pairs: TuningPairs, spec: LanguageSpec, tuning: Tuning) -> dict[str, Any]:
    """What decides the adapters, besides the stages."""
    import torch

    return {
        "case": origin.case,
        "pairs": pairs.digest(),
        "base": spec.base.digest,
        "definitions": spec.definitions_digest,
        "lengths": [spec.chat.context, spec.serving.answer_tokens],
        "arithmetic": [supported_precision(tuning.precision), torch.cuda.is_available()],
    }


def store_candidate(
    builder: CandidateBuilder,
    run: CandidateRun,
    adapter: Path,
    spec: LanguageSpec,
    *,
    train_rows: int,
    holdout_rows: int,
) -> Candidate:
    """Merge an adapter, write the served weights into the run's folder, and log the candidate."""
    out, base = run.folder, spec.base
    shutil.copytree(adapter, out / "adapter")
    with progress_step("merge and write GGUF"), scratch_folder(out.parent) as work:
        merged = merge(base, adapter, Path(work) / "merged")
        write_gguf(merged, out / "model.f16.gguf", "f16")
        if spec.serving.weights == "f16":
            (out / "model.f16.gguf").rename(out / "model.gguf")
        else:
            write_gguf(merged, out / "model.gguf", spec.serving.weights)
    weights = weights_digest(out, base)
    add_knowledge(spec, builder.examples, out)
    log_batch(builder.client, run.run_id, tags={"driftline.weights_digest": weights})
    log_model(builder, run.run_id, out / "adapter", base)
    return builder.save(run, weights, (), train_rows=train_rows, holdout_rows=holdout_rows)


def _run_stage(
    name: str,
    stage: Stage,
    context: StageContext,
    *,
    start: Path | None,
    parent: ParentRun,
    key: str,
) -> Path | None:
    """Train a stage from the adapter in `start`, or resume it. Return the folder of the resulting adapter."""
    from tasks.train.language.trainer_callbacks import newest_valid_checkpoint

    folder = context.folder / name
    adapter = folder / "adapter"
    if (adapter / ADAPTER).is_file():
        with progress_step(f"tune, {name}") as step:
            step.figure = "trained before"
        return adapter
    builder, client = parent.builder, parent.builder.client
    tags = {**builder.tags, **parent.device, "mlflow.parentRunId": parent.run_id, "driftline.stage": name}
    with start_run(client, builder.experiment_id, f"{key}-{name}", name, tags) as run_id:
        log_batch(client, run_id, params=stage.model_dump(exclude_none=True))
        if start is not None and context.clock.over() and newest_valid_checkpoint(folder) is None:
            log_batch(client, run_id, tags={"driftline.skipped": BUDGET_SPENT})
            return start
        reporter = MlflowReporter(client, run_id, context)
        try:
            trained = run_stage(name, stage, context, start, reporter)
        finally:
            reporter.flush()
        if not trained:
            reason = BUDGET_SPENT if context.clock.over() else NO_WRONG_ANSWERS
            log_batch(client, run_id, tags={"driftline.skipped": reason})
            return start
    return adapter


def _estimate_metrics(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    return {
        f"estimated_{stage}_{name}": value
        for stage, estimate in estimates.items()
        for name, value in estimate.model_dump().items()
    }


def weights_digest(folder: Path, base: BaseModelFiles) -> str:
    return digest_of([file_digest(folder / "adapter" / ADAPTER), base.digest])


def _parameters(tuning: Tuning, precision: str, base: BaseModelFiles) -> dict[str, Any]:
    declared = tuning.model_dump(mode="json", exclude={"lora", "stages"}, exclude_none=True)
    declared |= {f"lora.{name}": value for name, value in tuning.lora.model_dump(exclude_none=True).items()}
    return declared | {"precision": precision, "base": base.source, "base_digest": base.digest}
