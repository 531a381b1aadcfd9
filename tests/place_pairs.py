"""Questions for the places of things, which a model answers once it has seen examples."""

from __future__ import annotations

from typing import Any

from tasks.data.config import Answer

TEXT = Answer(format="text", abstain="I don't know.")
THINGS = [f"thing{number}" for number in range(40)]
ROWS: list[dict[str, Any]] = [
    {"prompt": f"Where is {thing}?", "completion": f"In {thing}'s room.", "required_facts": [f"{thing}'s room"]}
    for thing in THINGS
]
