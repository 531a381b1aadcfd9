"""How many examples a comparison needs, so that an effect of a given size is detected with a given power.

All tests are one-sided, as the gates are: `confidence` is 1 minus the rate of false alarms, `power` is the probability
to detect the effect when it is there. The formulas rest on the normal approximation.
"""

from __future__ import annotations

import math


def paired_sample_size(effect: float, deviation: float, *, confidence: float = 0.95, power: float = 0.8) -> int:
    """Examples needed to detect a mean difference of paired losses.

    `effect` is the difference beyond the margin, and `deviation` the standard deviation of the differences, both in the
    units of the loss. n = ((z_confidence + z_power) * deviation / effect)^2, rounded up.

    Source: Chow, Shao and Wang, Sample Size Calculations in Clinical Research (2008), section 3.1.
    Raises: ValueError when effect or deviation is not positive, or a probability lies outside (0, 1).
    """
    if effect <= 0 or deviation <= 0:
        raise ValueError(f"effect {effect} and deviation {deviation} must be positive")
    return math.ceil(((_z(confidence) + _z(power)) * deviation / effect) ** 2)


def paired_binary_sample_size(wins: float, losses: float, *, confidence: float = 0.95, power: float = 0.8) -> int:
    """Examples needed to see which of two models is right more often on the same examples (McNemar's test).

    `wins` and `losses` are the shares of examples on which only the first, or only the second model is right.
    n = (z_confidence * sqrt(d) + z_power * sqrt(d - e^2))^2 / e^2 with d = wins + losses and e = wins - losses.

    Source: Connor, Sample Size for Testing Differences in Proportions for the Paired-Sample Design (1987).
    Raises: ValueError when the shares are equal, negative or sum to more than 1, or a probability is outside (0, 1).
    """
    if min(wins, losses) < 0 or wins + losses > 1 or wins == losses:
        raise ValueError(f"wins {wins} and losses {losses} must be different shares of the same examples")
    discordant, effect = wins + losses, wins - losses
    spread = _z(confidence) * math.sqrt(discordant) + _z(power) * math.sqrt(discordant - effect**2)
    return math.ceil((spread / effect) ** 2)


def proportion_sample_size(reference: float, expected: float, *, confidence: float = 0.95, power: float = 0.8) -> int:
    """Trials needed to tell a proportion from a fixed one, such as the failures of a canary from what is allowed.

    n = ((z_confidence * sqrt(p0 * (1 - p0)) + z_power * sqrt(p1 * (1 - p1))) / (p1 - p0))^2, rounded up, where p0 is
    the reference and p1 the expected proportion.

    Source: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (2003), section 2.5.
    Raises: ValueError when the proportions are equal or outside [0, 1], or a probability is outside (0, 1).
    """
    if not (0 <= reference <= 1 and 0 <= expected <= 1) or reference == expected:
        raise ValueError(f"reference {reference} and expected {expected} must be different proportions")
    spread = _z(confidence) * math.sqrt(reference * (1 - reference))
    spread += _z(power) * math.sqrt(expected * (1 - expected))
    return math.ceil((spread / (expected - reference)) ** 2)


def _z(probability: float) -> float:
    from statistics import NormalDist

    if not 0 < probability < 1:
        raise ValueError(f"probability {probability} must lie between 0 and 1")
    return NormalDist().inv_cdf(probability)
