"""What a call retrieved from a knowledge base: a release reports it to the gateway, which records it."""

from __future__ import annotations

from pydantic import Field, ValidationError

from tasks.core.config import Result

RETRIEVAL_HEADER = "x-driftline-retrieval"  # from a release to the gateway, as JSON
MAX_PASSAGES = 50
MAX_QUERY = 4_000  # characters
METHODS = ("hybrid", "words", "vectors")


class Retrieval(Result):
    """The passages of a call, best first, and what became of its answer."""

    passages: tuple[str, ...] = Field((), max_length=MAX_PASSAGES)  # their ids
    similarity: float | None = Field(None, ge=-1.01, le=1.01)  # the highest of the passages; None without passages
    cited: tuple[str, ...] = Field((), max_length=MAX_PASSAGES)  # ids of the passages that the answer cites
    abstained: bool = False  # whether the answer is the abstention
    guarded: tuple[tuple[str, str, int], ...] = ()  # what rules found in passages: rule, outcome and count
    grounded: bool | None = None  # whether the model's answer passed the check; None: it was not checked

    @property
    def outcome(self) -> str:
        """What became of the passages, as a label of metrics."""
        if self.grounded is False:
            return "ungrounded"
        if self.abstained:
            return "abstained"
        return "passages" if self.passages else "none"


def parse_retrieval(header: str | None) -> Retrieval | None:
    """The retrieval in a header; None without one, and for anything else."""
    try:
        return Retrieval.model_validate_json(header) if header else None
    except ValidationError:
        return None
