"""Prefect tasks of the train package."""

from __future__ import annotations

from pathlib import Path

from tasks.core.prefect import stage
from tasks.data.results import Snapshot
from tasks.features.results import Frame
from tasks.train.config import Target, Train, Tuning
from tasks.train.results import Candidate, LanguageSpec, Origin


@stage("train a candidate", lambda c: f"{c.train_rows:,} rows, weights {c.weights_digest[:12]}")
def train_candidate(origin: Origin, frame: Frame, target: Target, config: Train) -> Candidate:
    """Fit, save and log a candidate."""
    from tasks.train.tabular.fit import train

    return train(origin, frame, target, config)


@stage("import a candidate", lambda c: f"weights {c.weights_digest[:12]}")
def import_tabular_model(
    origin: Origin, path: Path, frame: Frame, target: Target, config: Train, trusted: tuple[str, ...]
) -> Candidate:
    """Check, save and log an imported scikit-learn model."""
    from tasks.train.tabular.imported import import_model

    return import_model(origin, path, frame, target, config, trusted)


@stage("import a candidate", lambda c: f"weights {c.weights_digest[:12]}")
def import_language_adapter(
    origin: Origin, path: Path, snapshot: Snapshot, spec: LanguageSpec, threads: int
) -> Candidate:
    """Check, merge, save and log an imported adapter."""
    from tasks.data.snapshots import check_snapshot
    from tasks.train.language.imported import import_adapter

    check_snapshot(snapshot)
    return import_adapter(
        origin, path, snapshot.path / "pairs", data_digest=snapshot.digest, spec=spec, threads=threads
    )


@stage("take the base as candidate", lambda c: f"weights {c.weights_digest[:12]}")
def make_untuned_candidate(origin: Origin, snapshot: Snapshot, spec: LanguageSpec) -> Candidate:
    """Store and log the base model with the case's prompt."""
    from tasks.data.snapshots import check_snapshot
    from tasks.train.language.untuned import make_candidate

    check_snapshot(snapshot)
    return make_candidate(origin, snapshot.path / "pairs", data_digest=snapshot.digest, spec=spec)


@stage("tune a candidate", lambda c: f"{c.train_rows:,} pairs, weights {c.weights_digest[:12]}")
def tune_candidate(
    origin: Origin, snapshot: Snapshot, spec: LanguageSpec, tuning: Tuning, practice: Path | None = None
) -> Candidate:
    """Tune an adapter in the case's stages, merge, save and log it; `practice` replaces the pairs to learn from."""
    from tasks.data.snapshots import check_snapshot
    from tasks.train.language.tune import TuningPairs, tune

    check_snapshot(snapshot)
    pairs = TuningPairs(snapshot.path / "pairs", practice or snapshot.path / "pairs")
    return tune(origin, pairs, data_digest=snapshot.digest, spec=spec, tuning=tuning)


@stage("practise on documents", lambda folder: folder.name)
def prepare_practice(case: str, snapshot: Snapshot, spec: LanguageSpec, state: Path) -> Path:
    """Pairs to learn from, made of the documents to practise on."""
    from tasks.knowledge.config import DOCUMENTS
    from tasks.train.language.practice import write_practice

    knowledge = spec.knowledge
    assert knowledge is not None
    documents = [snapshot.path / DOCUMENTS / f"{name}.parquet" for name in knowledge.settings.practice]
    return write_practice(case, snapshot.path / "pairs", documents, spec=knowledge, chat=spec.chat, state=state)
