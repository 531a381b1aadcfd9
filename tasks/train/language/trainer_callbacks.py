"""What is seen and guarded while a stage trains: live figures, sample answers, time, losses and checkpoints."""

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
from tasks.train.candidates import ENERGY
from tasks.train.config import Stage
from tasks.train.language.distributed import broadcast_flag, wait_for_all

MARK = "sound.json"  # in a checkpoint: digests of its files, written last
LINES = 8  # told on the terminal in one stage


class ProgressCallback(TrainerCallback):
    """Tells of a stage as it goes, and ends it when it must.

    Raises from within the training: DriftlineError when the loss is no number any more.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        tell: Callable[[Mapping[str, float], int], None],
        show: Callable[[Any, int], Mapping[str, float]],
        best: Callable[[Any], None],
        over: Callable[[float], bool] = lambda _: False,
    ) -> None:
        """`tell` logs figures at a step, `show` makes sample answers and scores them, `best` keeps the adapter.

        `over` says whether so many seconds more would be beyond the budget of all stages.
        """
        self._name, self._stage, self._tell, self._show, self._best = name, stage, tell, show, best
        self._over = over
        self._tokens = self._busy = self._before = self._energy = 0.0
        self._started = self._told = self._step = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        history = state.log_history  # not empty when resumed: its figures belong to the new run, too
        self._before = max((each.get("seconds", 0.0) for each in history), default=0.0)
        self._energy = max((each.get(ENERGY, 0.0) for each in history), default=0.0)
        for each in history:
            self._tell(each, each["step"])
        self._started = self._told = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        took = time.monotonic() - self._step
        self._busy += took
        own = self._stage.minutes and self._seconds() + took > self._stage.minutes * 60
        control.should_training_stop |= broadcast_flag(bool(self._over(took) or own))  # what is learned by now is kept

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        logs = more["logs"]
        entry = state.log_history[-1]
        entry["seconds"] = self._seconds()
        if "loss" in logs:
            self._check(logs, state.global_step, Path(args.output_dir))
            entry |= self._measured(logs)
            self._say(entry, state)
        self._tell(entry, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        model = more["model"]
        self._tell(self._show(model, state.global_step), state.global_step)
        losses = [each["eval_loss"] for each in state.log_history if "eval_loss" in each]
        stop = False
        if self._stage.patience is not None and losses:
            since = len(losses) - 1 - losses.index(min(losses))
            if since == 0:
                self._best(model)
            stop = since >= self._stage.patience
        control.should_training_stop |= broadcast_flag(stop)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait_for_all()  # each process writes a part
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
        digests = {str(path.relative_to(folder)): file_digest(path) for path in files}
        write_text(folder / MARK, json.dumps(digests, indent=1))

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def _check(self, logs: Mapping[str, float], at: int, folder: Path) -> None:
        wrong = [name for name in ("loss", "grad_norm") if not math.isfinite(float(logs.get(name, 0.0)))]
        if wrong:
            kept = newest_valid_checkpoint(folder)
            raise DriftlineError(
                f"Stage {self._name} diverged: its {wrong[0]} is no number any more.",
                where=f"train.stages.{self._name}, step {at}",
                found=f"{wrong[0]} {logs[wrong[0]]}, learning rate {logs.get('learning_rate', 0.0):.2g}",
                allowed=f"the last good checkpoint is kept: {kept}" if kept else "finite numbers",
                todo="Lower the stage's learning_rate or clip, raise its warmup, or look for broken pairs.",
            )

    def _measured(self, logs: Mapping[str, float]) -> dict[str, float]:
        tokens = float(logs.get("num_tokens", 0.0))
        figures = {"memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        if self._busy and tokens > self._tokens:
            figures["tokens_per_second"] = (tokens - self._tokens) / self._busy
        figures |= self._of_gpu()
        self._tokens, self._busy = tokens, 0.0
        return figures

    def _of_gpu(self) -> dict[str, float]:
        import torch

        if not torch.cuda.is_available():
            return {}
        watts = torch.cuda.power_draw() / 1000
        self._energy += watts * self._busy / 3600
        return {
            "gpu_memory_gb": torch.cuda.max_memory_allocated() / 2**30,
            "gpu_utilization": torch.cuda.utilization() / 100,
            "gpu_watts": watts,
            ENERGY: self._energy,
        }

    def _say(self, entry: Mapping[str, float], state: Any) -> None:
        at, of = state.global_step, state.max_steps
        if at % max(1, of // LINES) and at != of:
            return
        with progress_step(f"{self._name}: step {at} of {of}") as told:
            told.started = self._told
            left = (of - at) * (self._seconds() - self._before) / max(1, at - self._resumed(state))
            figures = [f"loss {entry['loss']:.3g}"]
            figures += [f"{entry['tokens_per_second']:,.0f} tokens/s"] if "tokens_per_second" in entry else []
            told.figure = ", ".join([*figures, f"{left / 60:.1f} min left"])
        self._told = time.monotonic()

    def _resumed(self, state: Any) -> int:
        """The step at which this process began."""
        return max((e["step"] for e in state.log_history if e.get("seconds", 0.0) <= self._before), default=0)


class FollowerCallback(TrainerCallback):
    """In a process that learns along: it stops when the first one says so."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= broadcast_flag(False)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= broadcast_flag(False)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait_for_all()


def newest_valid_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are what they were when written; damaged ones are told of, and removed.

    A process killed while it wrote one leaves it without its mark, which is no damage to tell of.
    """
    import shutil

    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    for each in found:
        try:
            digests = json.loads((each / MARK).read_text(encoding="utf-8"))
            wrong = [name for name, digest in digests.items() if file_digest(each / name) != digest]
        except FileNotFoundError as error:
            wrong = [Path(error.filename).name]
        except ValueError:
            wrong = [MARK]
        if not wrong:
            return each
        if wrong != [MARK] or (each / MARK).exists():
            text = f"Checkpoint {each} is damaged ({', '.join(wrong)}); going on from the one before it."
            warnings.warn(text, stacklevel=2)
        shutil.rmtree(each)
    return None
