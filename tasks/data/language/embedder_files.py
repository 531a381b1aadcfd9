"""Finds the sentence-embedding model that a case names, and checks its files."""

from __future__ import annotations

from pathlib import Path

from tasks.core.config import digest_of
from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.core.untrusted import read_json_object
from tasks.data.language.base_model import weights_in
from tasks.data.origins.local import path_of_uri
from tasks.data.results import EmbedderFiles

POOLING = Path("1_Pooling") / "config.json"  # where sentence-transformers stores the pooling mode


def find_embedder(source: str, case_folder: Path) -> EmbedderFiles:
    """The files of a model with mean pooling.

    Raises: DataError when a file is missing, the weights are pickles or damaged, or the model uses another pooling.
    """
    folder = path_of_uri(source, case_folder)
    weights = weights_in(folder, source)
    if (folder / POOLING).is_file():
        modes = [
            name
            for name, enabled in read_json_object(folder / POOLING).items()
            if name.startswith("pooling_mode") and enabled
        ]
        if modes != [(mean := "pooling_mode_mean_tokens")]:
            raise DataError(
                "The embedder was trained with another pooling than the mean of the tokens' vectors.",
                where=f"{source}, {POOLING}",
                found=", ".join(modes) or "no pooling mode",
                allowed=mean,
                todo="Name a model with mean pooling, such as all-MiniLM.",
            )
    digests = {path.name: file_digest(path) for path in sorted([*weights, *folder.glob("*.json")])}
    return EmbedderFiles(digest=digest_of(digests), folder=folder, files=tuple(digests))
