"""What a search found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field

from tasks.core.config import Result
from tasks.core.files import write_text
from tasks.statistics.metric_catalog import CUSTOM, HIGHER_IS_BETTER

RESULT_FILE = "result.json"
State: TypeAlias = Literal["running", "complete", "beaten", "failed", "refused", "unfinished"]


class TrialRecord(Result):
    """A configuration with what is known of it. Losses are means over the examples of its rungs."""

    number: int
    arm: str
    label: str
    configuration: dict[str, Any]
    parameters: dict[str, Any] = Field(default_factory=dict)  # the sampler's suggestions
    change: dict[str, dict[str, Any] | None] = Field(default_factory=dict)  # keys of case.yaml's sections that make it
    state: State = "running"
    rungs: int = 0  # so many were measured
    loss: float | None = None
    best: float | None = None  # loss of the best at its end, on the same examples
    seconds: float = 0.0  # of measuring
    calls: int = 0
    money: float = 0.0
    call_seconds: float = 0.0
    call_cost: float = 0.0
    size: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)
    reason: str = ""  # of its end
    combined: bool = False  # of other trials, by whose predictions it was scored


class Optimism(Result):
    """What choosing the best of many adds to its value, by the bootstrap over examples and choice."""

    loss: float  # of the chosen, on the examples that chose it
    corrected: float  # of what would be chosen, on examples that did not choose
    low: float
    high: float


class SearchResult(Result):
    """The trials of a search, the front, and the one to adopt."""

    case: str
    key: str
    metric: str
    folder: Path
    trials: tuple[TrialRecord, ...]
    front: tuple[int, ...]  # numbers of trials that no other beats in both quality and speed, best quality first
    knee: int | None
    chosen: int  # 0: the case as it is
    comparison: str  # of the chosen with the case as it is, on the same examples; empty where these are one
    is_better: bool  # by more than the best of so many trials would be by chance
    optimism: Optimism | None
    importance: dict[str, float] = Field(default_factory=dict)
    owned: dict[str, tuple[str, ...]]  # keys of sections of case.yaml that adopting replaces
    examples: int
    rungs: tuple[str, ...]
    stopped: str
    seconds: float
    calls: int
    money: float
    budget: str

    @property
    def best(self) -> TrialRecord:
        return self.trial(self.chosen)

    def trial(self, number: int) -> TrialRecord:
        return next(trial for trial in self.trials if trial.number == number)


def shown_value(metric: str, loss: float | None) -> str:
    """A mean loss as people know it: of a metric that is better when higher, 1 minus the loss."""
    if loss is None:
        return ""
    return f"{1 - loss if metric in HIGHER_IS_BETTER or metric.startswith(CUSTOM) else loss:.4f}"


def trial_path(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:05d}.json"


def write_trial(folder: Path, trial: TrialRecord) -> None:
    write_text(trial_path(folder, trial.number), trial.model_dump_json(indent=1))


def read_trials(folder: Path) -> list[TrialRecord]:
    """The trials of a search, in the order of their numbers."""
    paths = sorted((folder / "trials").glob("[0-9]*.json"))
    return [TrialRecord.model_validate(json.loads(path.read_text("utf-8"))) for path in paths]


def write_result(result: SearchResult) -> Path:
    """Keep the result in the folder of its search."""
    return write_text(result.folder / RESULT_FILE, result.model_dump_json(indent=1))


def latest_result(searches: Path) -> SearchResult | None:
    """The newest result of a case's searches; None when there is none."""
    paths = sorted(searches.glob(f"*/{RESULT_FILE}"), key=lambda path: path.stat().st_mtime)
    return SearchResult.model_validate_json(paths[-1].read_text("utf-8")) if paths else None
