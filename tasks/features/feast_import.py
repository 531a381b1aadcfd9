"""Imports Feast in a fifth of the time."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def import_feast() -> ModuleType:
    """Import feast without two steps that take 7 of its 9 seconds; returns at once when feast is already imported.

    Its classes are decorated with typeguard's `typechecked`, which parses and recompiles their source at import; with
    `python -O` typeguard skips these checks itself. And feast imports torch, for RetrievalJob.to_tensor alone: this
    function defers that import until to_tensor is called. Both are private to feast: tests/features/test_compat.py.
    """
    if "feast" in sys.modules:
        return sys.modules["feast"]
    import typeguard

    lazy = ModuleType("feast.torch_wrapper", "Imports torch on first use.")
    lazy.get_torch = lambda: importlib.import_module("torch")  # type: ignore[attr-defined]
    sys.modules[lazy.__name__] = lazy
    decorate = typeguard.typechecked
    typeguard.typechecked = _without_checks
    try:
        feast = importlib.import_module("feast")
        feast.torch_wrapper = lazy  # type: ignore[attr-defined]
        return feast
    finally:
        typeguard.typechecked = decorate


def _without_checks(target: Any = None, **_: Any) -> Any:
    return (lambda decorated: decorated) if target is None else target
