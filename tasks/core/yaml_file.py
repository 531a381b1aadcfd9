"""Safe YAML: refused when it is too long, too deep, or expands to too many nodes."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 4 << 20  # characters
MAX_DEPTH = 64  # levels
MAX_NODES = 500_000  # with every alias expanded
_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises: ValueError with the reason and the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text):,} characters; at most {MAX_CHARACTERS:,}")
    try:
        try:
            _check_nodes(text, _FAST)
        except yaml.YAMLError:
            _check_nodes(text, yaml.SafeLoader)  # slower; accepts a little more, with better messages
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except (TypeError, AttributeError, OverflowError, RecursionError, KeyError) as error:  # odd tags and keys
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _check_nodes(text: str, loader: Any) -> None:
    """Count levels and nodes as the text is parsed, before a value is made. Raises: ValueError, yaml.YAMLError."""
    anchors: dict[str | None, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and nodes before
    nodes = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                anchors[anchor] = nodes - before
        elif isinstance(event, yaml.AliasEvent):
            nodes += anchors.get(event.anchor, MAX_NODES + 1)  # an alias of itself is endless
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, nodes - 1))
            elif event.anchor:
                anchors[event.anchor] = 1
        else:
            continue
        if len(open_nodes) > MAX_DEPTH or nodes > MAX_NODES:
            line = event.start_mark.line + 1 if event.start_mark else 0
            what = f"{MAX_DEPTH} levels" if len(open_nodes) > MAX_DEPTH else f"{MAX_NODES:,} values, aliases unfolded"
            raise ValueError(f"more than {what}, in line {line}")
