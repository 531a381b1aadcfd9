"""The arms of a language case side by side: what each brings, and what it costs to make and to run."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.search.language.arm import LAYERS
from tasks.search.results import SearchResult, TrialRecord, shown_value

GOOD = 0.02  # of the loss: a trial that is so near to the best is good


@dataclass(frozen=True)
class Step:
    """The best trial of one arm."""

    trial: TrialRecord
    tried: int  # trials of the arm
    is_whole: bool  # whether it answered all questions; else it was beaten before

    @property
    def seconds_to_make(self) -> float:
        """For what it needs besides its prompt: an index, an adapter, weights of another format."""
        return self.trial.metrics.get("seconds_to_make", 0.0)


def ladder(result: SearchResult) -> list[Step]:
    """A step for each arm that was tried, from the cheapest kind to the most expensive one."""
    steps = []
    for layer in LAYERS:
        trials = [trial for trial in result.trials if trial.arm == layer and trial.loss is not None]
        if trials:
            best = min(trials, key=lambda trial: (trial.state != "complete", -trial.rungs, trial.loss, trial.number))
            steps.append(Step(best, len(trials), best.rungs == len(result.rungs)))
    return steps


LADDER_HEAD = ("arm", "metric", "measured", "tried", "s to make", "s a call", "1,000 calls", "best of it")


def ladder_rows(result: SearchResult) -> list[tuple[str, ...]]:
    """The steps as texts, under LADDER_HEAD."""
    return [
        (
            step.trial.arm,
            shown_value(result.metric, step.trial.loss),
            "all questions" if step.is_whole else f"to {result.rungs[step.trial.rungs - 1].split()[-1]}",
            str(step.tried),
            f"{step.seconds_to_make:.1f}",
            f"{step.trial.call_seconds:.3f}",
            f"{1000 * step.trial.call_cost:.4f}",
            f"trial {step.trial.number}: {step.trial.label}",
        )
        for step in ladder(result)
    ]


def cheapest_line(result: SearchResult) -> str:
    """One sentence on the cheapest good trial."""
    trial = cheapest_good(result)
    value = shown_value(result.metric, trial.loss)
    return (
        f"the cheapest good arm, within {GOOD:g} of the best: trial {trial.number} ({trial.arm}: {trial.label}), "
        f"{result.metric} {value}, {trial.call_seconds:.3f} s a call"
    )


def cheapest_good(result: SearchResult, within: float = GOOD) -> TrialRecord:
    """Of the trials within so much of the best, the one whose calls cost least; of equal costs the quickest."""
    complete = [trial for trial in result.trials if trial.state == "complete" and trial.loss is not None]
    least = min(trial.loss or 0.0 for trial in complete)
    good = [trial for trial in complete if (trial.loss or 0.0) <= least + within]
    return min(good, key=lambda trial: (trial.call_cost, trial.call_seconds, trial.number))
