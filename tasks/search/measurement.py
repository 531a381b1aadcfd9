"""The file of a measurement: losses and what they took, named by configuration and rung, so that none is made twice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import digest_of
from tasks.core.files import atomic_path
from tasks.search.problem import Configuration, Cost, Problem, Scores
from tasks.search.results import TrialRecord

if TYPE_CHECKING:
    import numpy as np

FIGURES = ("calls", "money", "call_seconds", "call_cost", "size", "refusal")


@dataclass(frozen=True)
class Measured:
    """Scores as they are read back, with the seconds of the process that measured."""

    scores: Scores
    seconds: float


def measurement_path(folder: Path, configuration: Configuration, rung: int) -> Path:
    return folder / "measured" / digest_of(configuration)[:16] / f"{rung}.npz"


def write_measurement(path: Path, scores: Scores, seconds: float) -> None:
    """Write it atomically."""
    import numpy as np

    about = {name: getattr(scores, name) for name in FIGURES} | {"metrics": dict(scores.metrics), "seconds": seconds}
    arrays = {"losses": np.asarray(scores.losses, np.float64)}
    if scores.predictions is not None:
        arrays["predictions"] = np.asarray(scores.predictions)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]


def read_measurement(path: Path) -> Measured | None:
    """None when there is none."""
    import numpy as np

    if not path.is_file():
        return None
    with np.load(path) as arrays:
        about: dict[str, Any] = json.loads(str(arrays["about"]))
        losses: np.ndarray = arrays["losses"]
        predictions = arrays["predictions"] if "predictions" in arrays.files else None
    figures = {name: about[name] for name in (*FIGURES, "metrics")}
    return Measured(Scores(losses, predictions=predictions, **figures), about["seconds"])


def losses_of(folder: Path, trial: TrialRecord) -> list[np.ndarray]:
    """The losses of a trial by rung."""
    paths = [measurement_path(folder, trial.configuration, rung) for rung in range(trial.rungs)]
    return [each.scores.losses for path in paths if (each := read_measurement(path))]


def cost_to_measure(problem: Problem, folder: Path, configuration: Configuration) -> Cost:
    """What the rungs of a configuration that are not measured yet take together."""
    rungs = range(len(problem.rungs))
    missing = [rung for rung in rungs if not measurement_path(folder, configuration, rung).is_file()]
    costs = [problem.estimate(configuration, rung) for rung in missing]
    return Cost(
        seconds=sum(each.seconds for each in costs),
        calls=sum(each.calls for each in costs),
        money=sum(each.money for each in costs),
    )
