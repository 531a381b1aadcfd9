"""A snapshot to a judged candidate."""

from __future__ import annotations

from prefect import flow

from flows.case import LanguageCase, TabularCase
from flows.prepare import prepare_steps
from flows.run_context import Request, RunContext, run_context, run_name
from services.rollout.task import agree_on_champion
from services.store.task import record_training_cost
from tasks.core.config import Result
from tasks.data.language.embedder_files import find_embedder
from tasks.data.results import Snapshot
from tasks.data.task import open_model
from tasks.evaluate.language.check import check_language_evaluation
from tasks.evaluate.results import Verdict
from tasks.evaluate.task import evaluate_candidate, evaluate_language_candidate
from tasks.features.task import training_frame
from tasks.release.results import Release
from tasks.release.task import find_champion
from tasks.train.results import Candidate
from tasks.train.task import import_language_adapter, import_table_model, train_candidate, tune_candidate


class TrainResult(Result):
    """A candidate, what it was made from, and what the gates say of it."""

    snapshot: Snapshot
    candidate: Candidate
    verdict: Verdict


@flow(name="train", flow_run_name=run_name)
def train(request: Request) -> TrainResult:
    """Prepare, build features, train a candidate and judge it against the gates and the champion."""
    with run_context(request) as run:
        return train_steps(run, prepare_steps(run))


def train_steps(run: RunContext, snapshot: Snapshot) -> TrainResult:
    agree_on_champion(run.case.name, run.settings)
    champion = find_champion(run.case.name, run.settings.tracking, run.settings.state)
    candidate = candidate_steps(run, snapshot)
    return TrainResult(snapshot=snapshot, candidate=candidate, verdict=evaluate_steps(run, candidate, champion))


def candidate_steps(run: RunContext, snapshot: Snapshot) -> Candidate:
    """Train, tune or import, and enter what it cost."""
    if isinstance(run.case, LanguageCase):
        return train_language(run, run.case, snapshot)
    return train_tabular(run, run.case, snapshot)


def train_tabular(run: RunContext, case: TabularCase, snapshot: Snapshot) -> Candidate:
    frame = training_frame(case.features, case.target.column, case.evaluate.slices, snapshot, run.settings.state)
    if run.model:
        return import_table_model(run.origin, run.model, frame, case.target, case.train, case.trusted)
    candidate = train_candidate(run.origin, frame, case.target, case.train)
    record_training_cost(candidate, case.price.machine_hour, run.settings)
    return candidate


def train_language(run: RunContext, case: LanguageCase, snapshot: Snapshot) -> Candidate:
    check_language_evaluation(case.evaluate, case.talk, case.pairs)  # now: a training later, it would be a waste
    if case.serve.embedder:
        find_embedder(case.serve.embedder, case.folder)
    base = open_model(case.model, case.folder, run.settings.state)
    if run.model:
        return import_language_adapter(run.origin, run.model, snapshot, base, case.talk, case.serve, case.train.threads)
    candidate = tune_candidate(run.origin, snapshot, base, case.talk, case.train, case.serve)
    budget = case.train.budget
    record_training_cost(candidate, budget.price_per_hour if budget else case.price.machine_hour, run.settings)
    return candidate


def evaluate_steps(run: RunContext, candidate: Candidate, champion: Release | None) -> Verdict:
    """Hold a candidate against the case's gates and a champion."""
    case, state, tracking = run.case, run.settings.state, run.settings.tracking
    model, digest = (champion.model, champion.digest) if champion else (None, None)
    if isinstance(case, LanguageCase):
        base = open_model(case.model, case.folder, state)
        threads = case.train.threads
        return evaluate_language_candidate(
            candidate, base, case.talk, case.serve, case.evaluate, threads, state, tracking, model, digest
        )
    return evaluate_candidate(candidate, case.target, case.train, case.evaluate, state, tracking, model, digest)
