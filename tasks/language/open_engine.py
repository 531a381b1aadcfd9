"""The engine of a model: llama.cpp for weights, or a client for a server behind an address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.language.engine import Engine, start_engine
from tasks.language.remote_engine import RemoteEngine, connect_upstream
from tasks.language.upstream import UPSTREAM, Upstream

WEIGHTS = "model.gguf"


def model_file(folder: Path) -> Path:
    """What runs the model of a candidate's or release's folder: its weights, or the description of its server."""
    upstream = folder / UPSTREAM
    return upstream if upstream.is_file() else folder / WEIGHTS


@contextmanager
def open_engine(model: Path, *, threads: int, slots: int, context: int) -> Iterator[Engine | RemoteEngine]:
    """The engine of a model file until the block ends; of a server only `slots` counts.

    Raises: DataError when the file does not exist; Unavailable when the engine does not start, or a key is not set.
    """
    if model.name == UPSTREAM:
        with connect_upstream(Upstream.read(model), slots=slots) as remote:
            yield remote
        return
    with start_engine(model, threads=threads, slots=slots, context=context) as local:
        yield local
