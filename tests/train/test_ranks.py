"""Several processes that learn a stage together."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from tasks.core.errors import DriftlineError
from tasks.train.language.distributed import broadcast_flag, rank, spawn_ranks, wait_for_all
from tests.train.pairs import killed_at, stages, tiny_base, tuned, write_pairs


def test_two_processes_learn_what_one_does_and_go_on_after_a_kill(tmp_path: Path) -> None:
    """Each takes half of every batch; killed in a step, none is left, and the rest is learned to the same weights."""
    base, pairs = tiny_base(tmp_path / "tiny"), write_pairs(tmp_path / "pairs")
    alone = tuned(tmp_path / "alone", base, pairs, stages(micro_batch=2), precision="fp32")
    others = killed_at(5, tmp_path / "state", base, pairs, stages(), precision="fp32", processes=2)
    assert len(others) == 1
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(each) for each in others):
        assert time.monotonic() < deadline, "a process outlives the one that started it"
        time.sleep(0.05)
    assert len(list(tmp_path.glob("state/tuning/travel/*/sft/checkpoint-4/sound.json"))) == 1
    again = tuned(tmp_path / "state", base, pairs, stages(), precision="fp32", processes=2)
    learned, wanted = (load_file(each.folder / "adapter" / "adapter_model.safetensors") for each in (again, alone))
    assert learned.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(learned[name], values, atol=1e-5, err_msg=name)


def fail() -> None:
    raise ValueError("no room for this one")


def vanish() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("worker", "message"), [(fail, "no room for this one"), (vanish, "the process was killed")])
def test_a_failed_process_ends_the_training(worker: Any, message: str) -> None:
    """Else the first one would wait for its share for ever."""
    begun = time.monotonic()
    with pytest.raises(DriftlineError, match="training process failed") as caught, spawn_ranks(2, worker):
        wait_for_all()
    assert message in caught.value.found
    assert time.monotonic() - begun < 60
    assert rank() == 0


def obey() -> None:
    assert broadcast_flag(False), "the first one says stop"


def test_none_stops_alone() -> None:
    """What the first one says holds for all; one alone does as it likes."""
    with spawn_ranks(2, obey):
        assert broadcast_flag(True)
    assert broadcast_flag(True)
    assert not broadcast_flag(False)
