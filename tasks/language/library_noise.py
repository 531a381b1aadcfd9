"""Torch and transformers with a fixed number of threads, and without output."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence_libraries(threads: int) -> Iterator[None]:
    """Use `threads` threads, offline, without telemetry and progress bars, within the block."""
    import datasets
    import torch
    from transformers.utils import logging

    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    before, level = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # trl and peft warn about their own names
            yield
    finally:
        torch.set_num_threads(before)
        logging.set_verbosity(level)
        logging.enable_progress_bar()
        datasets.enable_progress_bars()
