"""Train a stage in several processes, each with its share of every batch.

Transformers, trl and accelerate share batches and gradients once torch.distributed is initialized.
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
from tasks.train.compat import reset_accelerator_state

READY = b"ready\n"
TIMEOUT = timedelta(hours=2)  # the others wait while the first samples answers


@contextmanager
def spawn_ranks(processes: int, train: Callable[..., object], *args: object) -> Iterator[None]:
    """In the block this process has rank 0 of `processes`; each other process calls `train(*args)` and ends.

    Raises: DriftlineError when another process fails.
    """
    if processes == 1:
        yield
        return
    with temporary_folder("train") as name, ExitStack() as stack:
        rendezvous = (Path(name) / "rendezvous").as_uri()
        workers = {log: _start(log, stack) for log in (Path(name) / f"{rank}.log" for rank in range(1, processes))}
        for rank, worker in enumerate(workers.values(), 1):
            with suppress(BrokenPipeError), worker.stdin as stdin:  # type: ignore[union-attr]  # it is a pipe
                pickle.dump((rank, processes, rendezvous, train, args), stdin)
        for log, worker in workers.items():
            if worker.stdout.readline() != READY:  # type: ignore[union-attr]
                raise _failed(log)
        try:
            with _process_group(0, processes, rendezvous):
                yield
                _wait(workers, TIMEOUT.total_seconds())
        except RuntimeError:  # torch raises it when a process is gone
            _wait(workers, 5)
            raise


def rank() -> int:
    """The rank of this process; rank 0 logs and saves."""
    from torch import distributed

    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def broadcast_flag(stop: bool) -> bool:
    """The flag of rank 0, in every process: a process that stopped alone would block the others."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return stop
    flags = [stop]
    distributed.broadcast_object_list(flags)
    return flags[0]


def wait_for_all() -> None:
    """Wait until all processes have reached this point."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Rank 0 runs the block before all others."""
    first = rank() == 0
    if not first:
        wait_for_all()
    yield
    if first:
        wait_for_all()


def _start(log: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a process that reads its work from standard input; the stack kills it."""
    output = stack.enter_context(log.open("wb"))
    command = with_parent_death_signal([sys.executable, "-m", "tasks.train.language.distributed"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output)
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


@contextmanager
def _process_group(rank: int, processes: int, rendezvous: str) -> Iterator[None]:
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(rank)
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    variables |= {"OMP_NUM_THREADS": torch.get_num_threads()}  # else accelerate sets it
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    with _environment({name: str(value) for name, value in variables.items()} | loopback):
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo", init_method=rendezvous, rank=rank, world_size=processes, timeout=TIMEOUT
        )
        try:
            yield
        finally:
            distributed.destroy_process_group()
            reset_accelerator_state()


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


def _wait(workers: Mapping[Path, subprocess.Popen[bytes]], timeout: float) -> None:
    """Wait at most `timeout` seconds for each process.

    Raises: DriftlineError when one failed.
    """
    for log, worker in workers.items():
        with suppress(subprocess.TimeoutExpired):
            if worker.wait(timeout):
                raise _failed(log)


def _failed(log: Path) -> DriftlineError:
    return DriftlineError(
        "A training process failed.",
        where="train.processes",
        found=tail(log) or "the process was killed",
        allowed="the last checkpoint remains",
        todo="Correct the error and run it again; or set train.processes to 1.",
    )


def main() -> None:
    """Run the training that standard input holds."""
    tune_gc()
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # libraries print into the log
    rank, processes, rendezvous, train, args = pickle.load(sys.stdin.buffer)  # written by the parent process
    out.write(READY)
    out.flush()
    with _process_group(rank, processes, rendezvous):
        train(*args)


if __name__ == "__main__":
    main()
