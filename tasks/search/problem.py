"""What a search needs to know of a kind of case: what can be tried, what that takes, and how it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from optuna import Trial

    from tasks.search.results import TrialRecord

Configuration: TypeAlias = dict[str, Any]  # JSON; equal configurations are measured once


@dataclass(frozen=True)
class Cost:
    """What a measurement takes, before it starts: an upper guess."""

    seconds: float = 0.0
    memory: int = 0  # bytes
    calls: int = 0  # of a language model
    money: float = 0.0


@dataclass(frozen=True)
class Scores:
    """What was measured on one rung, and what it took."""

    losses: np.ndarray  # of each example of the rung, float64; the same examples in the same order for everyone
    calls: int = 0
    money: float = 0.0
    call_seconds: float = 0.0  # of one row or one question, once it is served
    call_cost: float = 0.0  # money of the same
    size: int = 0  # bytes of what is served
    metrics: Mapping[str, float] = field(default_factory=dict)  # for people: auc, exact_match, ...
    predictions: np.ndarray | None = None  # where an ensemble can be built of them
    refusal: str = ""  # which constraint of the case the predictions break, such as a difference between groups


@dataclass(frozen=True)
class Complete:
    """A trial that was measured on every rung."""

    configuration: Configuration
    loss: float
    call_seconds: float
    predictions: Sequence[np.ndarray | None]  # by rung


@dataclass(frozen=True)
class Combination:
    """A configuration that combines complete trials, with its scores: those of its parts, so it is not measured."""

    configuration: Configuration
    scores: Sequence[Scores]  # by rung


class Problem(Protocol):
    """A case that is searched. It is pickled into the process that measures, so it holds paths and digests.

    A rung is a part of the examples (a fold, a block of questions). Every configuration is measured on the rungs in
    their order, and stops where it is shown to be worse than the best so far on the same examples.
    """

    @property
    def case(self) -> str: ...

    @property
    def key(self) -> str:
        """Digest of data, definitions, code and space: a search with an equal key goes on where the last one ended."""

    @property
    def metric(self) -> str:
        """What losses measure: the name of a loss, or of a metric of which they are 1 minus its value (auc, r2)."""

    @property
    def rungs(self) -> Sequence[str]:
        """Names of the parts of the examples; `prepare` was called before."""

    @property
    def workers(self) -> int:
        """How many measurements may run side by side."""

    def prepare(self) -> None:
        """Load what all measurements share. Each measurement runs in a fork of the process that called this.

        Raises: InputError when the case can't be searched.
        """

    def start(self) -> Configuration:
        """The case as it is: trial 0."""

    def first(self) -> Sequence[Mapping[str, Any]]:
        """Values of `suggest` to try before the sampler's own; those left out are sampled."""

    def suggest(self, trial: Trial) -> Configuration:
        """Build a configuration by Optuna's suggestions."""

    def refusal(self, configuration: Configuration) -> str:
        """Why a configuration is not tried, such as a constraint of the case; empty when it is."""

    def exceeded(self, record: TrialRecord) -> str:
        """Which limit of the case a measured configuration exceeds; empty when none."""

    def estimate(self, configuration: Configuration, rung: int) -> Cost:
        """What measuring would take. The engine corrects the seconds by those of earlier trials of the same arm."""

    def measure(self, configuration: Configuration, rung: int) -> Scores:
        """Measure a configuration on one rung, in a process of its own that may be killed.

        Raises: DriftlineError when it can't be measured; the trial then fails, and the search goes on.
        """

    def combine(self, trials: Sequence[Complete]) -> Combination | None:
        """A combination of complete trials that is worth a trial, such as an ensemble; None when there is none."""

    def clusters(self, rung: int) -> Sequence[str] | None:
        """What the examples of a rung are resampled by; None: each by itself."""

    def arm(self, configuration: Configuration) -> str:
        """The group that it belongs to: a family of models; base, prompt, examples, retrieval or tuned."""

    def describe(self, configuration: Configuration) -> str:
        """A configuration in a few words."""

    @property
    def owned(self) -> Mapping[str, Sequence[str]]:
        """The keys of each section of case.yaml that a configuration sets; adopting removes those that it lacks."""

    def as_change(self, configuration: Configuration) -> dict[str, dict[str, Any] | None]:
        """The keys of sections of case.yaml that make the case this configuration; None: the section goes."""
