"""A snapshot to a judged candidate."""

from __future__ import annotations

from prefect import flow

from flows.case import LanguageCase, TabularCase
from flows.entry import Opened, Request, opened, run_name
from flows.prepare import prepare_steps
from tasks.data.embedder import find_embedder
from tasks.data.results import Snapshot
from tasks.data.task import open_model
from tasks.evaluate.check import check_judging
from tasks.evaluate.results import Verdict
from tasks.evaluate.task import judge_candidate, judge_tuned
from tasks.features.task import training_frame
from tasks.foundation.config import Result
from tasks.gateway.task import agree_on_champion, enter_cost
from tasks.release.results import Release
from tasks.release.task import find_champion
from tasks.train.results import Candidate
from tasks.train.task import import_language_adapter, import_table_model, train_candidate, tune_candidate


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
    agree_on_champion(run.case.name, run.settings)
    champion = find_champion(run.case.name, run.settings.tracking, run.settings.state)
    if isinstance(run.case, LanguageCase):
        candidate, verdict = tune_and_judge(run, run.case, snapshot, champion)
    else:
        candidate, verdict = fit_and_judge(run, run.case, snapshot, champion)
    return Trained(snapshot=snapshot, candidate=candidate, verdict=verdict)


def fit_and_judge(
    run: Opened, case: TabularCase, snapshot: Snapshot, champion: Release | None
) -> tuple[Candidate, Verdict]:
    state, tracking = run.settings.state, run.settings.tracking
    frame = training_frame(case.features, case.target.column, case.evaluate.slices, snapshot, state)
    if run.model:
        candidate = import_table_model(
            case.name, run.as_of, run.model, frame, case.target, case.train, case.trusted, state, run.lineage, tracking
        )
    else:
        candidate = train_candidate(case.name, run.as_of, frame, case.target, case.train, state, run.lineage, tracking)
        enter_cost(candidate, case.price.machine_hour, run.settings)
    verdict = judge_candidate(
        candidate,
        case.target,
        case.train,
        case.evaluate,
        state,
        tracking,
        champion.model if champion else None,
        champion.digest if champion else None,
    )
    return candidate, verdict


def tune_and_judge(
    run: Opened, case: LanguageCase, snapshot: Snapshot, champion: Release | None
) -> tuple[Candidate, Verdict]:
    state, tracking = run.settings.state, run.settings.tracking
    check_judging(case.evaluate, case.talk, case.pairs)  # now: a training later, it would be a waste
    if case.serve.embedder:
        find_embedder(case.serve.embedder, case.folder)
    base = open_model(case.model, case.folder, state)
    if run.model:
        candidate = import_language_adapter(
            case.name,
            run.as_of,
            run.model,
            snapshot,
            base,
            case.talk,
            case.serve,
            case.train.threads,
            state,
            run.lineage,
            tracking,
        )
    else:
        candidate = tune_candidate(
            case.name, run.as_of, snapshot, base, case.talk, case.train, case.serve, state, run.lineage, tracking
        )
        budget = case.train.budget
        enter_cost(candidate, budget.price_per_hour if budget else case.price.machine_hour, run.settings)
    verdict = judge_tuned(
        candidate,
        base,
        case.talk,
        case.serve,
        case.evaluate,
        case.train.threads,
        state,
        tracking,
        champion.model if champion else None,
        champion.digest if champion else None,
    )
    return candidate, verdict
