"""Several processes that learn a stage together, each its share of every batch.

Transformers, trl and accelerate share batches and gradients by themselves where they find torch.distributed joined.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from tasks.core.errors import DriftlineError
from tasks.core.files import tail, temporary_folder
from tasks.core.processes import tune_gc, with_parent_death_signal

READY = b"ready\n"
PATIENCE = timedelta(hours=2)  # the first one may look for wrong answers, or show samples, while the others wait


@contextmanager
def spawn_ranks(processes: int, learn: Callable[..., object], *given: object) -> Iterator[None]:
    """In the block this process is the first of so many; each other one calls `learn(*given)`, and ends with it.

    Raises: DriftlineError when another one fails.
    """
    if processes == 1:
        yield
        return
    with temporary_folder("learn") as name, ExitStack() as stack:
        meeting = (Path(name) / "meeting").as_uri()
        others = {log: _start(log, stack) for log in (Path(name) / f"{rank}.log" for rank in range(1, processes))}
        for rank, other in enumerate(others.values(), 1):
            with suppress(BrokenPipeError), other.stdin as told:  # type: ignore[union-attr]  # it is a pipe
                pickle.dump((rank, processes, meeting, learn, given), told)
        for log, other in others.items():
            if other.stdout.readline() != READY:  # type: ignore[union-attr]
                raise _failed(log)
        try:
            with _joined(0, processes, meeting):
                yield
                _check(others, PATIENCE.total_seconds())
        except RuntimeError:  # as torch tells that a process is gone
            _check(others, 5)
            raise


def rank() -> int:
    """Which of the processes this one is: the first, 0, tells and keeps what is learned."""
    from torch import distributed

    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def broadcast_flag(stop: bool) -> bool:
    """What the first process says: none may stop alone, for the others would wait for it."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return stop
    said = [stop]
    distributed.broadcast_object_list(said)
    return said[0]


def wait_for_all() -> None:
    """Go on when all processes are here."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """The first process goes through the block before all others."""
    first = rank() == 0
    if not first:
        wait_for_all()
    yield
    if first:
        wait_for_all()


def _start(log: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    """A process that waits for what it has to do, and that lives no longer than the stack."""
    output = stack.enter_context(log.open("wb"))
    command = with_parent_death_signal([sys.executable, "-m", "tasks.train.language.distributed"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output)
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


@contextmanager
def _joined(rank: int, processes: int, meeting: str) -> Iterator[None]:
    import torch
    from accelerate.state import AcceleratorState
    from torch import distributed

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(rank)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    told |= {"OMP_NUM_THREADS": torch.get_num_threads()}  # else accelerate settles it
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    with _environment({name: str(value) for name, value in told.items()} | loopback):
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo", init_method=meeting, rank=rank, world_size=processes, timeout=PATIENCE
        )
        try:
            yield
        finally:
            distributed.destroy_process_group()
            AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.pop(name, None) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _check(others: Mapping[Path, subprocess.Popen[bytes]], patience: float) -> None:
    """Raises: DriftlineError when one of them failed; each has so many seconds to end."""
    for log, other in others.items():
        with suppress(subprocess.TimeoutExpired):
            if other.wait(patience):
                raise _failed(log)


def _failed(log: Path) -> DriftlineError:
    return DriftlineError(
        "A process that learns along failed.",
        where="train.processes",
        found=tail(log) or "it was killed",
        allowed="what was learned till the last checkpoint is kept",
        todo="Correct what it names, and run it again; or set train.processes to 1.",
    )


def main() -> None:
    """Learn along, as standard input says."""
    tune_gc()
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # what libraries print goes into the log
    rank, processes, meeting, learn, given = pickle.load(sys.stdin.buffer)  # from the process that started this one
    out.write(READY)
    out.flush()
    with _joined(rank, processes, meeting):
        learn(*given)


if __name__ == "__main__":
    main()
