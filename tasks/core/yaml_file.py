"""YAML that people write, or bring: read only when it is neither too long nor too deep, nor unfolds to too much."""

from __future__ import annotations

from typing import Any

import yaml

LONGEST = 4 << 20  # characters
DEEPEST = 64  # levels
MOST_NODES = 500_000  # with every alias unfolded
_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises: ValueError that says what is wrong with it, and in which line.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text):,} characters; at most {LONGEST:,}")
    try:
        try:
            _check_nodes(text, _FAST)
        except yaml.YAMLError:
            _check_nodes(text, yaml.SafeLoader)  # it reads a little more, and says better where it is wrong
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
            nodes += anchors.get(event.anchor, MOST_NODES + 1)  # of itself: without end
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, nodes - 1))
            elif event.anchor:
                anchors[event.anchor] = 1
        else:
            continue
        if len(open_nodes) > DEEPEST or nodes > MOST_NODES:
            line = event.start_mark.line + 1 if event.start_mark else 0
            what = f"{DEEPEST} levels" if len(open_nodes) > DEEPEST else f"{MOST_NODES:,} values, aliases unfolded"
            raise ValueError(f"more than {what}, in line {line}")
