"""A trial while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.search.problem import Cost
from tasks.search.results import TrialRecord

if TYPE_CHECKING:
    import numpy as np
    from optuna import Trial


@dataclass
class Contender:
    """A trial while it runs."""

    record: TrialRecord
    trial: Trial | None  # of the sampler; None: the case as it is
    losses: list[np.ndarray] = field(default_factory=list)  # by rung
    seconds: float = 0.0
    is_finalist: bool = False  # is measured to its end, although it was beaten

    @property
    def rung(self) -> int:
        return len(self.losses)

    def mean(self, rungs: int | None = None) -> float:
        import numpy as np

        return float(np.concatenate(self.losses[:rungs]).mean())


@dataclass(frozen=True)
class Running:
    """A measurement in its process."""

    contender: Contender
    estimate: Cost
    started: float
    deadline: float
