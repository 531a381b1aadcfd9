"""How many examples a comparison needs, so that a difference of some size is detected with some power."""

from __future__ import annotations

import math


def paired_sample_size(effect: float, deviation: float, *, confidence: float = 0.95, power: float = 0.8) -> int:
    """Examples needed to detect a mean difference of paired losses.

    `effect` is the difference beyond the margin, and `deviation` the standard deviation of the differences, both in the
    units of the loss. n = ((z_confidence + z_power) * deviation / effect)^2 + z_confidence^2 / 2, rounded up.

    Source: Chow, Shao and Wang, Sample Size Calculations in Clinical Research (2008), section 3.1; the second part for
    an estimated deviation: Guenther, Sample Size Formulas for Normal Theory T Tests (1981).
    Raises: ValueError when effect or deviation is not positive, or a probability lies outside (0, 1).
    """
    if effect <= 0 or deviation <= 0:
        raise ValueError(f"effect {effect} and deviation {deviation} must be positive")
    z = z_value(confidence)
    return math.ceil(((z + z_value(power)) * deviation / effect) ** 2 + z * z / 2)


def z_value(probability: float) -> float:
    """The quantile of the normal distribution."""
    from statistics import NormalDist

    if not 0 < probability < 1:
        raise ValueError(f"probability {probability} must lie between 0 and 1")
    return NormalDist().inv_cdf(probability)
