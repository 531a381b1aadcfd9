"""Learn one stage: in this process, or in several at once."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

from tasks.core.files import atomic_path
from tasks.language.library_noise import silence_libraries
from tasks.train.config import Stage
from tasks.train.language.distributed import main_process_first, spawn_ranks
from tasks.train.language.mlflow_callback import MlflowReporter
from tasks.train.language.model import ADAPTER, add_adapter, load_adapter, load_base, save_adapter
from tasks.train.language.stage_context import StageContext
from tasks.train.language.stages import make_trainer


def run_stage(name: str, stage: Stage, work: StageContext, start: Path | None, teller: MlflowReporter) -> bool:
    """Train a stage from the adapter in `start`, and keep its own; whether there was anything to learn from.

    Raises: DriftlineError when the loss is no number any more, or when a process that learns along fails.
    """
    with spawn_ranks(work.tuning.processes, _learn_along, name, stage, work, start):
        return _learn(name, stage, work, start, teller)


def _learn_along(name: str, stage: Stage, work: StageContext, start: Path | None) -> None:
    with silence_libraries(work.tuning.threads):
        _learn(name, stage, work, start, None)


def _learn(name: str, stage: Stage, work: StageContext, start: Path | None, teller: MlflowReporter | None) -> bool:
    """teller: None where another process tells and keeps."""
    from tasks.train.language.trainer_callbacks import FollowerCallback, ProgressCallback, newest_valid_checkpoint

    folder = work.folder / name
    best = folder / "best"
    model = load_base(work.base, work.precision, work.tuning.attention, work.tuning.quantize)
    if start is None:
        model = add_adapter(model, work.tuning.lora, work.tuning.seed)
    else:
        model = load_adapter(model, start, trainable=True)

    def keep_best(model: Any) -> None:
        shutil.rmtree(best, ignore_errors=True)
        save_adapter(model, best, work.base)

    watch = (
        ProgressCallback(name, stage, teller.tell, teller.show, keep_best, work.clock.over)
        if teller
        else FollowerCallback()
    )
    trainer = make_trainer(name, stage, work, model, watch)
    if trainer is None:
        return False
    with main_process_first():
        checkpoint = newest_valid_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if teller:
        with atomic_path(folder / "adapter") as temporary:
            if stage.patience is not None and (best / ADAPTER).is_file():
                shutil.copytree(best, temporary)
            else:
                save_adapter(trainer.model, temporary, work.base)
    del model, trainer
    gc.collect()
    return True
