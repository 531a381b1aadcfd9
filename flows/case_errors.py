"""What is wrong with a case file, one line an error."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from tasks.core.config import Section


def direct_causes(errors: Sequence[Any]) -> list[Any]:
    """The errors without those caused by others: a list is too short because its entries are invalid."""
    inner = {e["loc"][:depth] for e in errors for depth in range(1, len(e["loc"]))}
    return [e for e in errors if e["type"] != "too_short" or e["loc"] not in inner]


def error_line(error: Any, kind: type[Section]) -> str:
    """An error as one line: the key, the problem and the value."""
    where = ".".join(str(part) for part in error["loc"]) or "the whole"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where.rsplit(".", 1)[-1], _keys(error["loc"], kind), 1)
        return f"{where}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    shown = "" if isinstance(value, dict | list) or error["type"] == "missing" else f" (found {value!r})"
    return f"{where}: {message}{shown}"


def _keys(loc: tuple[Any, ...], kind: type[Section]) -> list[str]:
    """The keys allowed at `loc`, if it is a section."""
    model: Any = kind
    for part in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((i for i in inner if isinstance(i, type) and issubclass(i, Section)), model)
    return list(getattr(model, "model_fields", {}))
