"""Imports Feast in a fifth of the time."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def import_feast() -> ModuleType:
    """Import feast without what costs 7 of its 9 seconds; returns at once when it is imported already.

    Its classes are decorated with typeguard's `typechecked`, which parses and recompiles their source at import; under
    `python -O` typeguard itself leaves them alone, as checks that production does without. And it imports torch, for
    RetrievalJob.to_tensor alone: here torch is imported when to_tensor asks for it.
    """
    if "feast" in sys.modules:
        return sys.modules["feast"]
    import typeguard

    lazy = ModuleType("feast.torch_wrapper", "Imports torch when it is asked for.")
    lazy.get_torch = lambda: importlib.import_module("torch")  # type: ignore[attr-defined]
    sys.modules[lazy.__name__] = lazy
    decorate = typeguard.typechecked
    typeguard.typechecked = _leave_alone  # type: ignore[assignment]
    try:
        feast = importlib.import_module("feast")
        feast.torch_wrapper = lazy  # type: ignore[attr-defined]
        return feast
    finally:
        typeguard.typechecked = decorate


def _leave_alone(target: Any = None, **_: Any) -> Any:
    return (lambda decorated: decorated) if target is None else target
