"""A snapshot to a judged candidate."""

from __future__ import annotations

from prefect import flow

from flows.entry import Opened, Request, opened, run_name
from flows.prepare import prepare_steps
from tasks.data.results import Snapshot
from tasks.evaluate.results import Verdict
from tasks.evaluate.task import judge_candidate
from tasks.features.task import training_frame
from tasks.foundation.config import Result
from tasks.release.task import find_champion
from tasks.train.results import Candidate
from tasks.train.task import train_candidate


class Trained(Result):
    """A candidate, what it was made from, and what the gates say of it."""

    snapshot: Snapshot
    candidate: Candidate
    verdict: Verdict


@flow(name="train", flow_run_name=run_name)
def train(request: Request) -> Trained:
    """Prepare, build features, train a candidate and judge it against the gates and the champion."""
    with opened(request) as run:
        return train_steps(run, prepare_steps(run))


def train_steps(run: Opened, snapshot: Snapshot) -> Trained:
    case, state = run.case, run.settings.state
    frame = training_frame(case.features, case.target.column, case.evaluate.slices, snapshot, state)
    candidate = train_candidate(
        case.name, run.as_of, frame, case.target, case.train, state, run.lineage, run.settings.tracking
    )
    champion = find_champion(case.name, run.settings.tracking, state)
    verdict = judge_candidate(
        candidate,
        case.target,
        case.train,
        case.evaluate,
        state,
        run.settings.tracking,
        champion.model if champion else None,
        champion.digest if champion else None,
    )
    return Trained(snapshot=snapshot, candidate=candidate, verdict=verdict)
