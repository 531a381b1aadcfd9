"""A rebuilt release compared with the sealed one: each part, and the weights byte by byte.

An adapter is trained by many threads whose sums may round differently on another machine. So where its bytes differ,
its tensors and metrics must lie within the tolerances stated below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tasks.core.config import Result

ADAPTER = "adapter/adapter_model.safetensors"
ADAPTER_TOLERANCE = 0.01  # distance of all tensors, relative to their length
METRIC_TOLERANCE = 0.02  # of each metric, absolute
FOLLOWING = ("weights", "files", "verdict")  # parts that differ where an adapter's weights do
CODE = ("commit", "dirty", "lock")  # parts that differ when other code rebuilds the release
Outcome = Literal["same", "within tolerance", "other code", "different"]


class Part(Result):
    """One part of the sealed manifest."""

    name: str
    sealed: str
    rebuilt: str
    outcome: Outcome


class Reproduction(Result):
    """What a rebuild of a release gave."""

    case: str
    digest: str  # of the sealed release
    rebuilt: str  # digest of the rebuilt one
    parts: tuple[Part, ...]
    metrics: tuple[Part, ...]

    @property
    def outcome(self) -> Outcome:
        outcomes = {part.outcome for part in (*self.parts, *self.metrics)}
        ranked: tuple[Outcome, ...] = ("different", "within tolerance", "other code")
        return next((outcome for outcome in ranked if outcome in outcomes), "same")

    @property
    def differing(self) -> list[str]:
        return [part.name for part in (*self.parts, *self.metrics) if part.outcome == "different"]


def compare_releases(sealed: Path, rebuilt: Path, manifests: tuple[dict[str, Any], dict[str, Any]]) -> Reproduction:
    """Compare two release folders with their manifests, the sealed one first."""
    before, after = (each["sealed"] for each in manifests)
    parts = [_part(name, before.get(name), after.get(name)) for name in {**before, **after}]
    metrics = _metrics(*(each["recorded"]["metrics"]["overall"] for each in manifests))
    if any(part.name == "weights" and part.outcome == "different" for part in parts) and (sealed / ADAPTER).is_file():
        distance = adapter_distance(sealed / ADAPTER, rebuilt / ADAPTER)
        near = distance <= ADAPTER_TOLERANCE and all(each.outcome != "different" for each in metrics)
        same_decision = before["verdict"]["decision"] == after["verdict"]["decision"]
        if near and same_decision:
            parts = [
                part.model_copy(update={"outcome": "within tolerance", "rebuilt": f"distance {distance:.2g}"})
                if part.name in FOLLOWING and part.outcome == "different"
                else part
                for part in parts
            ]
    else:
        metrics = [
            each if each.sealed == each.rebuilt else each.model_copy(update={"outcome": "different"})
            for each in metrics
        ]
    digests = (str(each["digest"]) for each in manifests)
    digest, other = digests
    return Reproduction(case=before["case"], digest=digest, rebuilt=other, parts=tuple(parts), metrics=tuple(metrics))


def _part(name: str, sealed: Any, rebuilt: Any) -> Part:
    outcome: Outcome = "same" if sealed == rebuilt else "other code" if name in CODE else "different"
    if isinstance(sealed, Mapping) and isinstance(rebuilt, Mapping):
        names = [each for each in {**sealed, **rebuilt} if sealed.get(each) != rebuilt.get(each)]
        text = f"{len(sealed)} entries"
        return Part(name=name, sealed=text, rebuilt=", ".join(names) or text, outcome=outcome)
    if isinstance(sealed, list) and isinstance(rebuilt, list):
        return Part(name=name, sealed=f"{len(sealed)} entries", rebuilt=f"{len(rebuilt)} entries", outcome=outcome)
    return Part(name=name, sealed=_short(sealed), rebuilt=_short(rebuilt), outcome=outcome)


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) >= 32 and " " not in text[:32] else text[:60]


def _metrics(sealed: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> list[Part]:
    parts = []
    for name in {**sealed, **rebuilt}:
        before, after = sealed.get(name), rebuilt.get(name)
        outcome: Outcome = "different"
        if before == after:
            outcome = "same"
        elif isinstance(before, int | float) and isinstance(after, int | float):
            near = math.isclose(before, after, rel_tol=0, abs_tol=METRIC_TOLERANCE)
            outcome = "within tolerance" if near else "different"
        parts.append(Part(name=name, sealed=f"{before}", rebuilt=f"{after}", outcome=outcome))
    return parts


def adapter_distance(sealed: Path, rebuilt: Path) -> float:
    """Of all tensors, relative to the length of the sealed ones; infinite when names or shapes differ."""
    import numpy as np
    from safetensors.numpy import load_file

    before, after = load_file(sealed), load_file(rebuilt) if rebuilt.is_file() else {}
    if {name: each.shape for name, each in before.items()} != {name: each.shape for name, each in after.items()}:
        return math.inf
    gap = sum(float(np.sum((before[name].astype(float) - after[name].astype(float)) ** 2)) for name in before)
    length = sum(float(np.sum(before[name].astype(float) ** 2)) for name in before)
    return math.sqrt(gap / length) if length else (0.0 if gap == 0 else math.inf)
