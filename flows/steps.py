"""The pipeline, stage after stage: what the flows do between a request and its result."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flows.case import LanguageCase, TabularCase
from flows.deployed.approval import require_approval
from flows.run_context import RunContext
from services.gateway.task import collect_log, collect_questions, collect_scored_rows, trace_calls
from services.rollout.task import reconcile_champion, retire_unused_releases, start_rollout
from services.runtime.task import is_stack_running, package_release, serve_and_smoke
from services.store.decisions import record_validation, record_verdict
from services.store.task import evaluation_cost, record_release, record_training_cost, watch_guardrails
from tasks.core.actor import acting, pipeline
from tasks.core.config import Result
from tasks.core.prefect import show_link
from tasks.data.config import PairsSpec, TrafficSpec
from tasks.data.data_card import write_card
from tasks.data.language.embedder_files import find_embedder
from tasks.data.results import Snapshot, TimeWindow, ValidatedBatches, WindowMessages
from tasks.data.snapshots import is_intact
from tasks.data.task import (
    curate_pairs,
    gather_messages,
    ingest_source,
    open_model,
    take_snapshot,
    validate_source,
)
from tasks.evaluate.guard import evaluate_guardrails
from tasks.evaluate.language.check import check_language_evaluation
from tasks.evaluate.results import Champion, Verdict
from tasks.evaluate.task import evaluate_candidate, evaluate_language_candidate
from tasks.features.results import Frame
from tasks.features.task import fill_online_store, training_frame, window_frame
from tasks.guard.files import find_guard_spec
from tasks.knowledge.config import DOCUMENTS, DocumentsSpec, Knowledge
from tasks.knowledge.documents.headings import headings_of
from tasks.knowledge.results import KnowledgeIndex, KnowledgeSpec
from tasks.knowledge.task import curate_documents, open_index
from tasks.monitor.results import Attempt, Decision
from tasks.monitor.signal import Window, WindowData
from tasks.monitor.task import (
    decide_on,
    decide_on_server,
    measure_messages,
    measure_served,
    measure_window,
    review_questions,
    watch_upstream,
)
from tasks.predict.results import Predictions
from tasks.predict.task import answer_window, predict_window
from tasks.release.guard_classifier import export_classifier
from tasks.release.registry import require_champion
from tasks.release.results import Release, SealContext
from tasks.release.task import (
    find_champion,
    find_champion_of_candidate,
    find_predecessor,
    promote_release,
    register_release,
    require_promotion,
    seal_language_release,
    seal_tabular_release,
)
from tasks.train.language.knowledge import candidate_index
from tasks.train.results import Candidate, LanguageSpec
from tasks.train.task import (
    import_language_adapter,
    import_tabular_model,
    make_untuned_candidate,
    prepare_practice,
    train_candidate,
    tune_candidate,
)


class TrainResult(Result):
    """A candidate, the snapshot it was trained on, and the verdict of its gates."""

    snapshot: Snapshot
    candidate: Candidate
    verdict: Verdict


@dataclass(frozen=True)
class History:
    """What came before a decision: the champion's predecessor, and earlier attempts to replace a champion."""

    predecessor: Release | None = None
    attempts: tuple[Attempt, ...] = ()


def prepare_snapshot(run: RunContext) -> Snapshot:
    """Ingest and validate the case's sources, and store the snapshot in DVC."""
    case, config = run.case, run.settings
    sources, raw = case.data.sources, config.data / "raw" / case.name
    logs = {
        name: collect_log(source.log, run.as_of, raw / f"{name}.parquet", config)
        for name, source in sources.items()
        if source.log
    }
    ingestions = {
        name: ingest_source(name, source, case.folder, raw=raw, log=logs.get(name), verbatim=name in case.verbatim)
        for name, source in sources.items()
    }
    validated = [
        validate_source(case.name, name, sources, ingestions=ingestions, as_of=run.as_of, state=config.state)
        for name in sources
    ]
    if isinstance(case, LanguageCase):
        base = open_model(case.model, case.folder, config.state)
        documents = _curate_documents(run, case, validated)
        spec = PairsSpec(
            pairs=case.pairs,
            chat=case.chat_spec,
            sources=sources,
            tuned=case.train is not None and not case.practises,
            traffic=case.traffic.source,
            messages=headings_of(documents.files) if documents and case.pairs.none else (),
        )
        validated.append(curate_pairs(case.name, spec, base, validated=validated, as_of=run.as_of, state=config.state))
        validated += [documents] if documents else []
    take = partial(take_snapshot, case.name, run.as_of, validated, state=config.state, remote=config.remote)
    snapshot = take()
    if not is_intact(snapshot):
        snapshot = take(repaired=datetime.now(UTC).isoformat())
    record_validation(snapshot, validated, config)
    show_link(f"{case.name}-data", write_card(snapshot, ingestions), "Data card of the snapshot")
    return snapshot


def build_knowledge(run: RunContext, case: LanguageCase, knowledge: Knowledge) -> KnowledgeIndex:
    """The index of a case's documents as they are now."""
    embedder = find_embedder(knowledge.embedder, case.folder)
    return open_index(case.name, prepare_snapshot(run), knowledge, embedder, run.settings.state)


def _curate_documents(
    run: RunContext, case: LanguageCase, validated: list[ValidatedBatches]
) -> ValidatedBatches | None:
    """The documents of a case; None when it has none."""
    if case.knowledge is None:
        return None
    raw = run.settings.data / "raw" / case.name / DOCUMENTS
    spec = DocumentsSpec(knowledge=case.knowledge, sources=case.data.sources, folder=case.folder, raw=raw)
    return curate_documents(case.name, spec, validated, as_of=run.as_of, state=run.settings.state)


def examples_since(run: RunContext, case: TabularCase, snapshot: Snapshot, start: datetime) -> Frame:
    """The tabular examples between a moment and the run's as-of."""
    return window_frame(case.frame_spec, snapshot, run.settings.state, TimeWindow(start=start, end=run.as_of))


def messages_since(run: RunContext, case: LanguageCase, snapshot: Snapshot, start: datetime) -> WindowMessages:
    """The messages that a language release received between a moment and the run's as-of."""
    spec = TrafficSpec(traffic=case.traffic, pairs=case.pairs, answer=case.answer, sources=case.data.sources)
    return gather_messages(spec, snapshot, TimeWindow(start=start, end=run.as_of), run.settings.state)


def train_and_evaluate(run: RunContext, snapshot: Snapshot) -> TrainResult:
    """Train a candidate, and evaluate it against the champion, if there is one."""
    reconcile_champion(run.case.name, run.settings)
    champion = find_champion(run.case.name, run.settings.tracking, run.settings.state)
    candidate = create_candidate(run, snapshot)
    return TrainResult(snapshot=snapshot, candidate=candidate, verdict=evaluate(run, candidate, champion))


def create_candidate(run: RunContext, snapshot: Snapshot) -> Candidate:
    """Train, tune or import a candidate, and record its cost."""
    if isinstance(run.case, LanguageCase):
        return _create_language(run, run.case, snapshot)
    return _create_tabular(run, run.case, snapshot)


def _create_tabular(run: RunContext, case: TabularCase, snapshot: Snapshot) -> Candidate:
    frame = training_frame(case.frame_spec, snapshot, run.settings.state)
    if run.model:
        return import_tabular_model(run.origin, run.model, frame, case.target, case.train, case.trusted)
    candidate = train_candidate(run.origin, frame, case.target, case.train)
    record_training_cost(candidate, case.price.machine_hour, run.settings)
    return candidate


def _create_language(run: RunContext, case: LanguageCase, snapshot: Snapshot) -> Candidate:
    # what evaluation needs is checked before training, which takes hours
    check_language_evaluation(
        case.evaluate,
        case.chat_spec,
        case.pairs,
        tuned=case.train is not None,
        knowledge=case.knowledge is not None,
    )
    spec = language_spec(run, case, snapshot)
    if run.model:
        return import_language_adapter(run.origin, run.model, snapshot, spec, _threads(run, case))
    if case.train is None:
        return make_untuned_candidate(run.origin, snapshot, spec)
    practice = prepare_practice(case.name, snapshot, spec, run.settings.state) if case.practises else None
    candidate = tune_candidate(run.origin, snapshot, spec, case.train, practice)
    budget = case.train.budget
    record_training_cost(candidate, budget.price_per_hour if budget else case.price.machine_hour, run.settings)
    return candidate


def language_spec(run: RunContext, case: LanguageCase, built: Snapshot | Candidate) -> LanguageSpec:
    """What a candidate of this snapshot consists of, or an existing candidate."""
    state = run.settings.state
    base = open_model(case.model, case.folder, state)
    embedder = find_embedder(case.serve.embedder, case.folder) if case.serve.embedder else None
    knowledge = None
    if case.knowledge:
        own = find_embedder(case.knowledge.embedder, case.folder)
        index = (
            open_index(case.name, built, case.knowledge, own, state)
            if isinstance(built, Snapshot)
            else candidate_index(built.folder)
        )
        knowledge = KnowledgeSpec(settings=case.knowledge, index=index, embedder=own)
    return LanguageSpec(base=base, chat=case.chat_spec, serving=case.serve, embedder=embedder, knowledge=knowledge)


def _threads(run: RunContext, case: LanguageCase) -> int:
    return case.train.threads if case.train else run.settings.threads


def evaluate(run: RunContext, candidate: Candidate, champion: Release | None) -> Verdict:
    """Evaluate a candidate, and the guardrails of its case, against the case's gates and a champion."""
    case, places = run.case, run.settings.places
    current = Champion(champion.model, champion.digest) if champion else None
    if isinstance(case, LanguageCase):
        spec = language_spec(run, case, candidate)
        with evaluation_cost(case.name, case.answer_price, run.settings):
            verdict = evaluate_language_candidate(candidate, spec, case.evaluate, _threads(run, case), places, current)
        own = spec.knowledge.embedder if spec.knowledge else spec.embedder
    else:
        verdict, own = evaluate_candidate(candidate, case.target, case.train, case.evaluate, places, current), None
    verdict = evaluate_guardrails(verdict, find_guard_spec(case.guardrails, places.state), places, own)
    record_verdict(candidate, verdict, run.settings)
    return verdict


def release_candidate(run: RunContext, trained: TrainResult) -> Release:
    """Seal, package, serve and smoke-test a candidate, and only then move the champion alias.

    Raises: GateFailed when the verdict is not to promote; the champion stays.
    """
    case, config = run.case, run.settings
    # a run that is started again after the champion alias moved has nothing to release, only to serve
    release = find_champion_of_candidate(trained.candidate, run.lineage, config.tracking, config.state)
    is_new = release is None
    if release is None:
        require_promotion(case.name, trained.verdict)
        require_approval(run, trained)
        folder = seal_release(run, trained)
        package_release(folder, config.state)
        release = register_release(folder, config.tracking)
        record_release(release, trained.verdict, config)
    online = None
    if isinstance(case, TabularCase):
        online = fill_online_store(case.features, trained.snapshot, config.state, config.online_store)
    if is_new or is_stack_running(config):
        serve_and_smoke(release, online, run.as_of if run.is_replay else None, config)
    with acting(pipeline()):
        is_champion = start_rollout(release, case.rollout, config)
    if is_champion:
        promote_release(release, config.tracking)
        export_classifier(release, config.state)
    retire_unused_releases(release, config)
    return release


def seal_release(run: RunContext, trained: TrainResult) -> Path:
    """The folder of the sealed release."""
    case, state = run.case, run.settings.state
    candidate, verdict = trained.candidate, trained.verdict
    context = SealContext(
        lineage=run.lineage,
        state=state,
        price=case.answer_price,
        snapshot=trained.snapshot,
        guard=find_guard_spec(case.guardrails, state),
        missing=tuple(dict.fromkeys(word for source in case.data.sources.values() for word in source.missing)),
    )
    if isinstance(case, TabularCase):
        return seal_tabular_release(candidate, verdict, case.target, context)
    return seal_language_release(candidate, verdict, language_spec(run, case, candidate), context)


def current_champion(run: RunContext) -> Release:
    """The champion, once registry and rollout agree on it.

    Raises: CaseError when the case has none.
    """
    reconcile_champion(run.case.name, run.settings)
    return require_champion(run.case.name, run.settings.tracking, run.settings.state)


def predict_since(run: RunContext, snapshot: Snapshot, champion: Release, start: datetime) -> Predictions:
    """Predict all examples between a moment and the run's as-of."""
    config, out = run.settings, run.settings.data / "predictions"
    if isinstance(run.case, LanguageCase):
        messages = messages_since(run, run.case, snapshot, start)
        return answer_window(champion, messages, run.as_of, out, config.threads)
    frame = examples_since(run, run.case, snapshot, start)
    return predict_window(champion, run.case.name, frame, run.as_of, out)


def monitor_champion(
    run: RunContext, snapshot: Snapshot, champion: Release, history: History | None = None
) -> Decision:
    """Measure a champion and decide; without a history, the case's own counts."""
    case, config, places = run.case, run.settings, run.settings.places
    start = max(champion.as_of, run.as_of - case.monitor.window)
    window = Window.of(champion, start, run.as_of)
    trace_calls(case.name, run.as_of, config)
    if not (case.guardrails.is_empty or run.is_replay):
        watch_guardrails(case.name, max(2, case.monitor.window.days), config)
    if isinstance(case, LanguageCase):
        if case.knowledge and champion.has_documents:
            path = config.data / "raw" / case.name / "logged_questions.parquet"
            review_questions(champion, collect_questions(champion, start, run.as_of, path, config), snapshot, places)
        upstream = watch_upstream(champion, window, places.state) if champion.is_remote else None
        if upstream and case.traffic.source is None and case.pairs.templates is None:
            return decide_on_server(upstream, window, case.monitor, places.state)
        predict_since(run, snapshot, champion, start)
        data = WindowData(messages_since(run, case, snapshot, start).path, snapshot, upstream, case.evaluate.scorers)
        signal = measure_messages(champion, case.monitor, window, data, case.folder, places)
        return decide_on(signal, case.monitor, [*history.attempts] if history else None)
    previous = history.predecessor if history else find_predecessor(champion, config.tracking, config.state)
    if case.has_time:
        predict_since(run, snapshot, champion, start)
        data = WindowData(examples_since(run, case, snapshot, start).path, snapshot)
        signal = measure_window(champion, case.monitor_spec, window, data, places, previous)
    else:
        path = config.data / "raw" / case.name / "requests.parquet"
        requests = collect_scored_rows(champion, start, run.as_of, path, config)
        signal = measure_served(champion, case.monitor_spec, window, requests, places, previous)
    return decide_on(signal, case.monitor, [*history.attempts] if history else None)
