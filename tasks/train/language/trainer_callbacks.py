"""Trainer callbacks: live metrics, sample answers, time budget, early stopping and checkpoints."""

from __future__ import annotations

import json
import math
import resource
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tasks.core.errors import DriftlineError
from tasks.core.files import file_digest, write_text
from tasks.core.progress import progress_step
from tasks.train.candidates import ENERGY_METRIC
from tasks.train.config import Stage
from tasks.train.language.distributed import broadcast_flag, wait_for_all

DIGESTS = "sound.json"  # in a checkpoint: digests of its files, written last
PROGRESS_LINES = 8  # on the terminal, for each stage


class ProgressCallback(TrainerCallback):
    """Reports a stage, and stops it at the end of its budget or of its patience.

    Raises from within the training: DriftlineError when the loss is not finite.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        log_metrics: Callable[[Mapping[str, float], int], None],
        log_samples: Callable[[Any, int], Mapping[str, float]],
        save_best: Callable[[Any], None],
        over_budget: Callable[[float], bool] = lambda _: False,
    ) -> None:
        """log_metrics: logs the metrics of a step. log_samples: logs sample answers and returns their scores.

        over_budget: whether so many more seconds would exceed the budget of all stages.
        """
        self._name, self._stage = name, stage
        self._log_metrics, self._log_samples, self._save_best = log_metrics, log_samples, save_best
        self._over_budget = over_budget
        self._tokens = self._busy = self._before = self._energy = 0.0
        self._started = self._reported = self._step = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        history = state.log_history  # not empty when resumed; its metrics belong to the new run, too
        self._before = max((each.get("seconds", 0.0) for each in history), default=0.0)
        self._energy = max((each.get(ENERGY_METRIC, 0.0) for each in history), default=0.0)
        for each in history:
            self._log_metrics(each, each["step"])
        self._started = self._reported = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        took = time.monotonic() - self._step
        self._busy += took
        over_stage = self._stage.minutes and self._seconds() + took > self._stage.minutes * 60
        control.should_training_stop |= broadcast_flag(bool(self._over_budget(took) or over_stage))

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        logs = more["logs"]
        entry = state.log_history[-1]
        entry["seconds"] = self._seconds()
        if "loss" in logs:
            self._check(logs, state.global_step, Path(args.output_dir))
            entry |= self._speed_and_memory(logs)
            self._show_progress(entry, state)
        self._log_metrics(entry, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        model = more["model"]
        self._log_metrics(self._log_samples(model, state.global_step), state.global_step)
        losses = [each["eval_loss"] for each in state.log_history if "eval_loss" in each]
        stop = False
        if self._stage.patience is not None and losses:
            since = len(losses) - 1 - losses.index(min(losses))
            if since == 0:
                self._save_best(model)
            stop = since >= self._stage.patience
        control.should_training_stop |= broadcast_flag(stop)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait_for_all()  # each process writes its part
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS)
        digests = {str(path.relative_to(folder)): file_digest(path) for path in files}
        write_text(folder / DIGESTS, json.dumps(digests, indent=1))

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def _check(self, logs: Mapping[str, float], step: int, folder: Path) -> None:
        wrong = [name for name in ("loss", "grad_norm") if not math.isfinite(float(logs.get(name, 0.0)))]
        if wrong:
            checkpoint = newest_valid_checkpoint(folder)
            raise DriftlineError(
                f"Stage {self._name} diverged: its {wrong[0]} is not finite.",
                where=f"train.stages.{self._name}, step {step}",
                found=f"{wrong[0]} {logs[wrong[0]]}, learning rate {logs.get('learning_rate', 0.0):.2g}",
                allowed=f"the last valid checkpoint remains: {checkpoint}" if checkpoint else "finite numbers",
                todo="Lower the stage's learning_rate or clip, raise its warmup, or look for damaged pairs.",
            )

    def _speed_and_memory(self, logs: Mapping[str, float]) -> dict[str, float]:
        tokens = float(logs.get("num_tokens", 0.0))
        metrics = {"memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        if self._busy and tokens > self._tokens:
            metrics["tokens_per_second"] = (tokens - self._tokens) / self._busy
        metrics |= self._gpu_metrics()
        self._tokens, self._busy = tokens, 0.0
        return metrics

    def _gpu_metrics(self) -> dict[str, float]:
        import torch

        if not torch.cuda.is_available():
            return {}
        watts = torch.cuda.power_draw() / 1000
        self._energy += watts * self._busy / 3600
        return {
            "gpu_memory_gb": torch.cuda.max_memory_allocated() / 2**30,
            "gpu_utilization": torch.cuda.utilization() / 100,
            "gpu_watts": watts,
            ENERGY_METRIC: self._energy,
        }

    def _show_progress(self, entry: Mapping[str, float], state: Any) -> None:
        step, steps = state.global_step, state.max_steps
        if step % max(1, steps // PROGRESS_LINES) and step != steps:
            return
        with progress_step(f"{self._name}: step {step} of {steps}") as line:
            line.started = self._reported
            left = (steps - step) * (self._seconds() - self._before) / max(1, step - self._resumed(state))
            figures = [f"loss {entry['loss']:.3g}"]
            figures += [f"{entry['tokens_per_second']:,.0f} tokens/s"] if "tokens_per_second" in entry else []
            line.figure = ", ".join([*figures, f"{left / 60:.1f} min left"])
        self._reported = time.monotonic()

    def _resumed(self, state: Any) -> int:
        """The step at which this process started."""
        return max((e["step"] for e in state.log_history if e.get("seconds", 0.0) <= self._before), default=0)


class FollowerCallback(TrainerCallback):
    """Stops a process other than the first when the first stops."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= broadcast_flag(False)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= broadcast_flag(False)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait_for_all()


def newest_valid_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint with unchanged files; damaged ones are removed with a warning.

    A process that is killed while it writes a checkpoint leaves no digests; then there is no warning.
    """
    import shutil

    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    for each in checkpoints:
        try:
            digests = json.loads((each / DIGESTS).read_text(encoding="utf-8"))
            wrong = [name for name, digest in digests.items() if file_digest(each / name) != digest]
        except FileNotFoundError as error:
            wrong = [Path(error.filename).name]
        except ValueError:
            wrong = [DIGESTS]
        if not wrong:
            return each
        if wrong != [DIGESTS] or (each / DIGESTS).exists():
            text = f"Checkpoint {each} is damaged ({', '.join(wrong)}); the one before it is used."
            warnings.warn(text, stacklevel=2)
        shutil.rmtree(each)
    return None
