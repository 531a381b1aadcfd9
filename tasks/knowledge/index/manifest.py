"""The files of an index, and the manifest that holds their digests."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.core.untrusted import read_json_object
from tasks.knowledge.results import KnowledgeIndex

PASSAGES, VECTORS, MANIFEST = "passages.sqlite", "vectors.npy", "index.json"
SENTENCES, OWNERS = "sentences.npy", "sentence_passages.npy"  # vectors of sentences, and the place of each's passage
FILES = (PASSAGES, VECTORS, SENTENCES, OWNERS)
TODO = "Build the index again: driftline knowledge build CASE; or release the case again."


def read_manifest(folder: Path) -> KnowledgeIndex:
    """The manifest of an index, once all its files have the digests in it.

    Raises: DataError when a file is missing, or differs.
    """
    for name in (MANIFEST, *FILES):
        if not (folder / name).is_file():
            raise DataError(
                "The index of the documents lacks a file.", where=str(folder), found=f"no {name}", todo=TODO
            )
    try:
        index = KnowledgeIndex.model_validate({**read_json_object(folder / MANIFEST), "folder": folder})
    except ValueError as error:
        raise DataError(
            "The manifest of an index can't be read.", where=str(folder / MANIFEST), found=str(error)[:200], todo=TODO
        ) from error
    for name in FILES:
        if (found := file_digest(folder / name)) != index.files.get(name):
            raise DataError(
                "A file of the index differs from its manifest.",
                where=str(folder / name),
                found=found,
                allowed=str(index.files.get(name)),
                todo=TODO,
            )
    return index
