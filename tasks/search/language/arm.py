"""An arm: one way to answer the questions of a case, as what it changes of the case."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from tasks.core.config import Result

Layer: TypeAlias = Literal["base", "prompt", "examples", "retrieval", "tuned"]
LAYERS: tuple[Layer, ...] = ("base", "prompt", "examples", "retrieval", "tuned")  # each costs more than those before it


class Arm(Result):
    """An arm of a search. All its fields are JSON: they are its key, and the configuration of its trial."""

    layer: Layer
    title: str  # what it changes of the case; empty: the case's own
    messages: tuple[dict[str, str], ...] = ()  # of its prompt; empty: no prompt
    model: str = ""  # another base model, by its name in `search.models`; empty: the case's
    passages: bool = False  # whether it searches the case's documents
    knowledge: dict[str, Any] = Field({})  # settings of `knowledge` that differ from the case's
    train: dict[str, Any] = Field({})  # settings of `train` that differ from the case's
    weights: str = ""  # number format; empty: the case's
    constrained: bool = False  # decoding by the answer's schema, which a caller's response_format demands

    @property
    def is_tuned(self) -> bool:
        return self.layer == "tuned"
