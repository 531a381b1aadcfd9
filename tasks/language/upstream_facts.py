"""What a server's list of models states of one."""

from __future__ import annotations

from typing import Any

from tasks.language.remote_engine import RemoteEngine

FACTS = ("id", "owned_by", "root", "max_model_len", "meta")  # without times and counters


def facts_of(engine: RemoteEngine) -> dict[str, Any]:
    """Empty when the server has no such list."""
    listed = [each for each in engine.models() if each.get("id") == engine.upstream.model]
    return {name: listed[0][name] for name in FACTS if name in listed[0]} if listed else {}
