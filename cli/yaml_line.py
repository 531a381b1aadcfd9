"""Values as YAML on one line."""

from __future__ import annotations

import sys
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes a text with line breaks or invisible characters in double quotes, which escape them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)


def flow(value: Any) -> str:
    """A value as YAML on one line; a text that YAML would read as something else is quoted."""
    text = yaml.dump(
        [value], Dumper=_Dumper, default_flow_style=True, width=sys.maxsize, allow_unicode=True, sort_keys=False
    )
    return text.strip()[1:-1]
