"""Tune a language model: the case's stages in order, each from what the one before left; killed, it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.core.code_digest import cache_key
from tasks.core.config import digest_of
from tasks.core.errors import DriftlineError
from tasks.core.files import file_digest, lock, scratch_folder
from tasks.core.mlflow import log_batch, start_run
from tasks.core.progress import progress_step
from tasks.data.config import ChatSpec
from tasks.data.results import BaseModelFiles
from tasks.language.gguf_writer import write_gguf
from tasks.language.library_noise import silence_libraries
from tasks.train.candidates import DEVICE, CandidateBuilder
from tasks.train.config import Serving, Stage, Tuning
from tasks.train.language.mlflow_callback import MlflowReporter, log_adapter
from tasks.train.language.model import (
    ADAPTER,
    arithmetic,
    merge,
    read_pairs,
)
from tasks.train.language.preflight import Estimate, check_fit
from tasks.train.language.run_stage import run_stage
from tasks.train.language.stage_context import StageContext, check_lengths
from tasks.train.language.time_budget import TrainingClock
from tasks.train.results import Candidate, Origin

SPENT = "the budget of the tuning was spent"
LEARNING = "tasks.train.language.run_stage"  # what an adapter depends on; how it is merged and packed does not count


def tune(
    origin: Origin,
    pairs: Path,
    data_digest: str,
    base: BaseModelFiles,
    talk: ChatSpec,
    tuning: Tuning,
    serving: Serving,
) -> Candidate:
    """Tune, save and log a candidate, or give the one that the same inputs made before.

    Raises: CaseError when the declaration can't be followed; DataError when pairs are missing or too long; Unavailable
    when memory does not suffice; DriftlineError when a loss is no number any more.
    """
    import torch

    precision = arithmetic(tuning.precision)
    definitions = definitions_of(talk, base)
    inputs = {
        "case": origin.case,
        "data": data_digest,
        "base": base.digest,
        "definitions": definitions,
        "lengths": [talk.context, serving.answer_tokens],
        "arithmetic": [precision, torch.cuda.is_available()],
    }
    key = cache_key(__name__, [inputs, tuning.digest, serving.digest])
    making = CandidateBuilder(origin, key, pairs, data_digest, definitions)
    if (found := making.made_before(lambda made: weights_digest(made, base))) is not None:
        return found

    rows = {name: read_pairs(pairs / f"{name}.parquet") for name in ("train", "validation", "evaluation")}
    place = origin.state / "tuning" / origin.case
    work = StageContext(
        base=base,
        talk=talk,
        tuning=tuning,
        serving=serving,
        precision=precision,
        train=rows["train"],
        validation=rows["validation"],
        folder=place,
        clock=TrainingClock(place / f"{key[:16]}.seconds", tuning.budget),
    )
    check_lengths(work, rows, min(tuning.max_tokens, talk.context))
    preferring = sum(row["rejected"] is not None for row in work.train)
    foreseen = check_fit(base, tuning, precision, work.examples(work.train), serving.answer_tokens, preferring)
    device = {DEVICE: torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    with (
        lock(place / "lock", f"The tuning of {origin.case}"),
        silence_libraries(tuning.threads),
        making.begun(device) as (run_id, out),
    ):
        log_batch(making.client, run_id, params=_parameters(tuning, precision, base), metrics=_foreseen(foreseen))
        making.log_dataset(run_id, {"num_rows": len(work.train)})
        adapter: Path | None = None
        for name, stage in tuning.stages:
            if stage is not None:
                so_far = cache_key(LEARNING, [inputs, tuning.up_to(name).digest])  # tunings that begin alike share it
                mine = replace(work, folder=place / so_far[:16])
                adapter = _run_stage(name, stage, mine, adapter, making, run_id, so_far, device)
        spent = work.clock.seconds
        price = tuning.budget.price_per_hour if tuning.budget else 0.0
        cost = {"cost": spent / 3600 * price} if price else {}
        log_batch(making.client, run_id, metrics={"minutes": spent / 60} | cost)
        if adapter is None:
            raise DriftlineError(
                "No stage of the tuning left an adapter.", where="train.stages", todo="Declare stage sft."
            )
        learned, held = len(work.train), len(rows["evaluation"])
        candidate = keep(making, run_id, out, adapter, base, serving, learned, held)
    work.clock.forget()
    for checkpoint in place.glob("*/*/checkpoint-*"):  # adapters stay: a tuning with one stage more begins there
        shutil.rmtree(checkpoint)
    return candidate


def keep(
    making: CandidateBuilder,
    run_id: str,
    out: Path,
    adapter: Path,
    base: BaseModelFiles,
    serving: Serving,
    learned: int,
    held: int,
) -> Candidate:
    """Merge an adapter, write what is served into `out`, and log it; it learned from so many pairs."""
    shutil.copytree(adapter, out / "adapter")
    with progress_step("merge and write GGUF"), scratch_folder(out.parent) as work:
        merged = merge(base, adapter, Path(work) / "merged")
        write_gguf(merged, out / "model.f16.gguf", "f16")
        if serving.weights == "f16":
            (out / "model.f16.gguf").rename(out / "model.gguf")
        else:
            write_gguf(merged, out / "model.gguf", serving.weights)
    weights = weights_digest(out, base)
    log_batch(making.client, run_id, tags={"driftline.weights_digest": weights})
    log_adapter(making, run_id, out / "adapter", base)
    return making.keep(run_id, out, weights, (), learned, held)


def _run_stage(
    name: str,
    stage: Stage,
    work: StageContext,
    start: Path | None,
    making: CandidateBuilder,
    parent: str,
    key: str,
    device: Mapping[str, str],
) -> Path | None:
    """Train a stage from the adapter in `start`, or go on with it; give the folder of the adapter that it leaves."""
    from tasks.train.language.trainer_callbacks import newest_valid_checkpoint

    folder = work.folder / name
    done = folder / "adapter"
    if (done / ADAPTER).is_file():
        with progress_step(f"tune, {name}") as telling:
            telling.figure = "learned before"
        return done
    client = making.client
    mine = {**making.tags, **device, "mlflow.parentRunId": parent, "driftline.stage": name}
    with start_run(client, making.experiment_id, f"{key}-{name}", name, mine) as run_id:
        log_batch(client, run_id, params=stage.model_dump(exclude_none=True))
        if start is not None and work.clock.over() and newest_valid_checkpoint(folder) is None:
            log_batch(client, run_id, tags={"driftline.skipped": SPENT})
            return start
        teller = MlflowReporter(client, run_id, work)
        try:
            learned = run_stage(name, stage, work, start, teller)
        finally:
            teller.flush()
        if not learned:
            why = SPENT if work.clock.over() else "the model gave too few wrong answers to learn from"
            log_batch(client, run_id, tags={"driftline.skipped": why})
            return start
    return done


def _foreseen(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    return {
        f"estimated_{stage}_{name}": value
        for stage, estimate in estimates.items()
        for name, value in estimate.model_dump().items()
    }


def definitions_of(talk: ChatSpec, base: BaseModelFiles) -> str:
    """Digest of what is said to a model and what it may answer."""
    return digest_of([talk.prompt.digest, talk.answer.digest, base.template_digest])


def weights_digest(folder: Path, base: BaseModelFiles) -> str:
    return digest_of([file_digest(folder / "adapter" / ADAPTER), base.digest])


def _parameters(tuning: Tuning, precision: str, base: BaseModelFiles) -> dict[str, Any]:
    declared = tuning.model_dump(mode="json", exclude={"lora", "stages"}, exclude_none=True)
    declared |= {f"lora.{name}": value for name, value in tuning.lora.model_dump(exclude_none=True).items()}
    return declared | {"precision": precision, "base": base.source, "base_digest": base.digest}
