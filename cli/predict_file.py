"""`driftline predict CASE FILE`: the champion's answers beside the rows of a file."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from cli.show import find_release
from flows.case import TabularCase, load_case
from services.rollout.champion_sync import champion_at_gateway
from services.runtime.process_specs import store_lookup
from services.serving.tabular_release import ONLINE_STORE, online_features
from tasks.core.console import console
from tasks.core.errors import CaseError
from tasks.core.settings import Settings, settings
from tasks.features.config import free_name
from tasks.predict.file_rows import FileSource, find_source
from tasks.predict.scored_file import Destination, FeatureLookup, FileScores, ReleasedModel, default_out, score_file
from tasks.release.registry import read_release
from tasks.release.results import Release
from tasks.release.seal import MANIFEST, release_folder, verify

MOST = 3  # categories of a column that are printed


def predict_file(name: str, file: Path, out: Path | None, profile: str | None) -> None:
    """Score a file of the source's form, and print what became of its rows.

    Raises: CaseError for a language case; NotReady without a champion.
    """
    from tasks.train.tabular.model_file import load

    config = settings()
    case = load_case(name, config.cases, profile)
    if not isinstance(case, TabularCase):
        raise CaseError(
            "A file can be scored for a tabular case only.",
            where=name,
            found=f"kind: {case.kind}",
            allowed="kind: tabular",
            todo=f"driftline predict {name} answers the messages since the release.",
        )
    release = _champion(name, config)
    sealed = verify(release.folder)["sealed"]
    source, columns = find_source(case.data.sources, case.features.examples, config.data / "raw" / name)
    target = next((kind for column, kind in columns.items() if free_name(column) == case.target.column), None)
    needed = (*(column["name"] for column in sealed["columns"] if column["origin"] == "request"), *sealed["entities"])
    spec = FileSource(source, case.data.sources[source], columns, case.features.examples, needed)
    model = ReleasedModel(
        case=name,
        digest=release.digest,
        model=load(release.model),
        columns=sealed["columns"],
        is_boolean=target is not None and target.type == "boolean",
        look_up=open_lookup(release, config)
        if len(needed) < len(sealed["columns"]) + len(sealed["entities"])
        else None,
    )
    # rows of a source with time are predicted by the predict flow, as of their moments
    stored = config.data / "predictions" if case.data.sources[source].time is None else None
    to = Destination((out or default_out(file)).absolute(), stored, datetime.now(UTC))
    with console.status(f"scoring {file.name} ..."):
        scores = score_file(model, spec, file, to)
    print_scores(scores, release, to.out)


def _champion(case: str, config: Settings) -> Release:
    """The release that has the case's traffic; else, after seconds, the registry's champion."""
    digest = champion_at_gateway(case, config)
    folder = release_folder(config.state, case, digest or "?")
    return read_release(folder, "") if (folder / MANIFEST).is_file() else find_release(case, None)


def open_lookup(release: Release, config: Settings) -> FeatureLookup | None:
    """The online store of the release's service, which looks up the features of views."""
    path = store_lookup(config, release, None, None)
    if not path.is_file():
        return None
    os.environ.update(json.loads(path.read_bytes()), **{ONLINE_STORE: config.online_store})
    return online_features()


def print_scores(scores: FileScores, release: Release, out: Path) -> None:
    """Rows, reasons, unseen categories, and where the answers are."""
    line = f"{scores.scored:,} of {scores.rows:,} rows scored by release {release.digest[:12]}: {out}"
    console.print(line, markup=False)
    if scores.problems:
        console.print(f"  {scores.rows - scores.scored:,} rows are not scored; the column error says why, such as:")
    for problem in scores.problems:
        console.print(f"    {problem}", markup=False)
    for column, texts in scores.unseen.items():
        most = ", ".join(f"{text} ({count:,} rows)" for text, count in texts.most_common(MOST))
        console.print(f"  unseen in training, {column}: {most}", markup=False)
