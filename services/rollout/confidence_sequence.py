"""A share of events known from counts, as an interval that holds however often it is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BinomialSequence:
    """How many of so many."""

    hits: int = 0
    of: int = 0

    def interval(self, alpha: float) -> tuple[float, float]:
        """Where the true share lies at all looks together, with probability 1 - alpha.

        The mixture of likelihood ratios over Jeffreys' prior is a martingale, which by Ville's inequality passes
        1 / alpha with probability alpha at most (Robbins 1970).
        """
        if not self.of:
            return 0.0, 1.0
        best = self.hits / self.of
        return self._edge(best, 0.0, alpha), self._edge(best, 1.0, alpha)

    def _edge(self, inside: float, outside: float, alpha: float) -> float:
        if self._evidence(outside) < -math.log(alpha):
            return outside
        for _ in range(50):
            middle = (inside + outside) / 2
            if self._evidence(middle) < -math.log(alpha):
                inside = middle
            else:
                outside = middle
        return outside

    def _evidence(self, share: float) -> float:
        """Against this share, as a logarithm."""
        misses = self.of - self.hits
        if (self.hits and share <= 0) or (misses and share >= 1):
            return math.inf
        mixed = _log_beta(self.hits + 0.5, misses + 0.5) - _log_beta(0.5, 0.5)
        expected = (self.hits * math.log(share) if self.hits else 0) + (misses * math.log1p(-share) if misses else 0)
        return mixed - expected


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
