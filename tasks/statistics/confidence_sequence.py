"""Sequential looks: the interval of a proportion that holds however often it is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BinomialSequence:
    """A count of events among trials."""

    hits: int = 0
    of: int = 0

    def interval(self, alpha: float) -> tuple[float, float]:
        """Bounds of the true proportion that hold at all looks together, with probability 1 - alpha.

        The mixture of likelihood ratios over Jeffreys' prior is a martingale; by Ville's inequality it passes 1 / alpha
        with probability alpha at most. Source: Robbins, Statistical Methods Related to the Law of the Iterated
        Logarithm (1970).
        """
        if not self.of:
            return 0.0, 1.0
        estimate = self.hits / self.of
        return self._bound(estimate, 0.0, alpha), self._bound(estimate, 1.0, alpha)

    def trials_needed(self, limit: float, alpha: float) -> int | None:
        """About how many trials show, at the present rate, that the proportion is at most `limit`.

        None when the present rate is above it, or there is no trial yet.
        """
        if not self.of or self.hits >= limit * self.of:
            return None
        trials, rate = self.of, self.hits / self.of
        while BinomialSequence(round(rate * trials), trials).interval(alpha)[1] > limit:
            trials = math.ceil(trials * 1.1)
        return trials

    def _bound(self, inside: float, outside: float, alpha: float) -> float:
        """Bisect between a proportion inside the interval and one at the edge of what is possible."""
        if self._evidence(outside) < -math.log(alpha):
            return outside
        for _ in range(50):
            middle = (inside + outside) / 2
            if self._evidence(middle) < -math.log(alpha):
                inside = middle
            else:
                outside = middle
        return outside

    def _evidence(self, proportion: float) -> float:
        """The logarithm of the likelihood ratio against this proportion."""
        misses = self.of - self.hits
        if (self.hits and proportion <= 0) or (misses and proportion >= 1):
            return math.inf
        mixture = _log_beta(self.hits + 0.5, misses + 0.5) - _log_beta(0.5, 0.5)
        likelihood = self.hits * math.log(proportion) if self.hits else 0
        likelihood += misses * math.log1p(-proportion) if misses else 0
        return mixture - likelihood


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
