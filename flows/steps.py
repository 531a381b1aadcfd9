"""The pipeline, stage after stage, up to a release: what the flows do between a request and its result."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flows.case import LanguageCase, TabularCase
from flows.deployed.approval import require_approval
from flows.run_context import RunContext
from flows.selftest import selftest_gates
from services.gateway.task import collect_log
from services.rollout.task import reconcile_champion, retire_unused_releases, start_rollout
from services.runtime.task import is_stack_running, package_release, serve_and_smoke
from services.store.decisions import record_selftest, record_validation, record_verdict
from services.store.task import evaluation_cost, record_release, record_training_cost
from tasks.core.actor import acting, pipeline
from tasks.core.config import Result
from tasks.core.prefect import show_link
from tasks.data.config import PairsSpec
from tasks.data.data_card import write_card
from tasks.data.language.embedder_files import find_embedder
from tasks.data.results import Snapshot, ValidatedBatches
from tasks.data.snapshots import is_intact
from tasks.data.task import (
    curate_pairs,
    ingest_source,
    open_model,
    take_snapshot,
    validate_source,
)
from tasks.evaluate.guard import measure_guardrails
from tasks.evaluate.language.check import check_language_evaluation
from tasks.evaluate.results import Champion, EvaluationContext, Verdict
from tasks.evaluate.task import evaluate_candidate, evaluate_language_candidate, show_answers_in_mlflow
from tasks.features.task import fill_online_store, training_frame
from tasks.govern.openlineage import add_input, add_output
from tasks.govern.selftest import Tested, sealed_result
from tasks.guard.files import find_guard_spec
from tasks.knowledge.config import DOCUMENTS, DocumentsSpec, Knowledge
from tasks.knowledge.documents.headings import headings_of
from tasks.knowledge.results import KnowledgeIndex, KnowledgeSpec
from tasks.knowledge.task import curate_documents, open_index
from tasks.language.upstream import is_remote
from tasks.release.guard_classifier import export_classifier
from tasks.release.results import Release, SealContext
from tasks.release.seal import read_manifest
from tasks.release.signature import sign_release
from tasks.release.task import (
    find_champion,
    find_champion_of_candidate,
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
        base = run.base
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
    for name, source in sources.items():
        add_input(f"{case.name}/{name} {source.uri}", ingestions[name].key)
    add_output(f"{case.name}/snapshot", snapshot.digest)
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


def train_and_evaluate(run: RunContext, snapshot: Snapshot) -> TrainResult:
    """Train a candidate, and evaluate it against the champion, if there is one."""
    reconcile_champion(run.case.name, run.settings)
    champion = find_champion(run.case.name, run.settings.tracking, run.settings.state)
    candidate = create_candidate(run, snapshot)
    add_output(f"{run.case.name}/candidate", candidate.weights_digest)
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
    # a server may have changed its model since; files are those that were read
    base = open_model(case.model, case.folder, state) if is_remote(case.model.source) else run.base
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
    current = Champion(champion.model, champion.digest) if champion else Champion(None)
    spec = language_spec(run, case, candidate) if isinstance(case, LanguageCase) else None
    embedder = (spec.knowledge.embedder if spec.knowledge else spec.embedder) if spec else None
    measured = measure_guardrails(find_guard_spec(case.guardrails, places.state), places, embedder)
    context = EvaluationContext(places, current, measured)
    if isinstance(case, LanguageCase):
        assert spec
        with evaluation_cost(case.name, case.answer_price, run.settings):
            verdict = evaluate_language_candidate(candidate, spec, case.evaluate, _threads(run, case), context)
    else:
        verdict = evaluate_candidate(candidate, case.target, case.train, case.evaluate, context)
    record_verdict(candidate, verdict, run.settings)
    return verdict


def show_answers(run: RunContext, trained: TrainResult) -> None:
    """Show a language candidate's answers in MLflow: last, since nothing depends on it."""
    if isinstance(run.case, LanguageCase):
        show_answers_in_mlflow(trained.candidate, trained.verdict, run.settings.places)


def release_candidate(run: RunContext, trained: TrainResult) -> Release:
    """Seal, package, serve and smoke-test a candidate, and only then move the champion alias.

    Raises: GateFailed when the verdict is not to promote; the champion stays.
    """
    try:
        return _release(run, trained)
    finally:
        show_answers(run, trained)


def _release(run: RunContext, trained: TrainResult) -> Release:
    case, config = run.case, run.settings
    # a run that is started again after the champion alias moved has nothing to release, only to serve
    release = find_champion_of_candidate(trained.candidate, run.lineage, config.tracking, config.state)
    is_new = release is None
    if release is None:
        require_promotion(case.name, trained.verdict)
        tested = selftest_gates(case, trained.candidate, trained.verdict)
        require_approval(run, trained)
        folder = seal_release(run, trained, tested)
        if config.signing_key:
            sign_release(folder, read_manifest(folder)["digest"], config.signing_key)
        add_output(f"{case.name}/release", read_manifest(folder)["digest"])
        package_release(folder, config.state)
        release = register_release(folder, config.tracking)
        record_release(release, trained.verdict, config)
        if tested:
            record_selftest(case.name, release.digest, {each.name: each.caught_by for each in tested}, config)
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


def seal_release(run: RunContext, trained: TrainResult, tested: Sequence[Tested] = ()) -> Path:
    """The folder of the sealed release; `tested` is what its gates made of known-bad candidates."""
    case, state = run.case, run.settings.state
    candidate, verdict = trained.candidate, trained.verdict
    context = SealContext(
        lineage=run.lineage,
        state=state,
        price=case.answer_price,
        snapshot=trained.snapshot,
        guard=find_guard_spec(case.guardrails, state),
        selftest=sealed_result(tested) if tested else "",
        missing=tuple(dict.fromkeys(word for source in case.data.sources.values() for word in source.missing)),
    )
    if isinstance(case, TabularCase):
        return seal_tabular_release(candidate, verdict, case.target, context)
    return seal_language_release(candidate, verdict, language_spec(run, case, candidate), context)
