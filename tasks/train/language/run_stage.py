"""Train one stage, in this process or in several."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

from tasks.core.files import atomic_path
from tasks.language.library_noise import silence_libraries
from tasks.train.compat import plain_torch_logprobs
from tasks.train.config import Stage
from tasks.train.language.distributed import main_process_first, spawn_ranks
from tasks.train.language.mlflow_callback import MlflowReporter
from tasks.train.language.model import ADAPTER, add_adapter, load_adapter, load_base, save_adapter
from tasks.train.language.stage_context import StageContext
from tasks.train.language.stages import make_trainer


def run_stage(name: str, stage: Stage, context: StageContext, start: Path | None, reporter: MlflowReporter) -> bool:
    """Train a stage from the adapter in `start` and save its own adapter. False when there is nothing to learn from.

    Raises: DriftlineError when the loss is not finite, or when another training process fails.
    """
    with spawn_ranks(context.tuning.processes, _train_follower, name, stage, context, start):
        return _train(name, stage, context, start, reporter)


def _train_follower(name: str, stage: Stage, context: StageContext, start: Path | None) -> None:
    with silence_libraries(context.tuning.threads):
        _train(name, stage, context, start, None)


def _train(name: str, stage: Stage, context: StageContext, start: Path | None, reporter: MlflowReporter | None) -> bool:
    """reporter: None in a process other than the first, which alone reports and saves."""
    from tasks.train.language.trainer_callbacks import FollowerCallback, ProgressCallback, newest_valid_checkpoint

    folder = context.folder / name
    best = folder / "best"
    model = load_base(context.spec.base, context.precision, context.tuning.attention, context.tuning.quantize)
    if start is None:
        model = add_adapter(model, context.tuning.lora, context.tuning.seed)
    else:
        model = load_adapter(model, start, trainable=True)

    def save_best(model: Any) -> None:
        shutil.rmtree(best, ignore_errors=True)
        save_adapter(model, best, context.spec.base)

    callback = (
        ProgressCallback(name, stage, reporter.log_metrics, reporter.log_samples, save_best, context.clock.over)
        if reporter
        else FollowerCallback()
    )
    with plain_torch_logprobs():
        trainer = make_trainer(name, stage, context, model, callback)
        if trainer is None:
            return False
        with main_process_first():
            checkpoint = newest_valid_checkpoint(folder)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if reporter:
        with atomic_path(folder / "adapter") as temporary:
            if stage.patience is not None and (best / ADAPTER).is_file():
                shutil.copytree(best, temporary)
            else:
                save_adapter(trainer.model, temporary, context.spec.base)
    del model, trainer
    gc.collect()
    return True
