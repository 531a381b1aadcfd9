"""Find the sentence-embedding model that a case names, and hold it against what is needed to open it."""

from __future__ import annotations

from pathlib import Path

from tasks.core.config import digest_of
from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.core.untrusted import read_json_object
from tasks.data.language.base_model import weights_in
from tasks.data.results import EmbedderFiles
from tasks.data.sources import path_of_uri

POOLING = Path("1_Pooling") / "config.json"  # how sentence-transformers tells what is made of the tokens' vectors


def find_embedder(source: str, case_folder: Path) -> EmbedderFiles:
    """The files of a model that gives a text the mean of its tokens' vectors.

    Raises: DataError when a file is missing, the weights are pickles or damaged, or the model means another thing.
    """
    folder = path_of_uri(source, case_folder)
    weights = weights_in(folder, source)
    if (folder / POOLING).is_file():
        modes = [
            name
            for name, set_ in read_json_object(folder / POOLING).items()
            if name.startswith("pooling_mode") and set_
        ]
        if modes != [(mean := "pooling_mode_mean_tokens")]:
            raise DataError(
                "The embedder was trained to make another vector of a text than the mean of its tokens'.",
                where=f"{source}, {POOLING}",
                found=", ".join(modes) or "no pooling mode",
                allowed=mean,
                todo="Name a model that was trained on the mean, such as all-MiniLM.",
            )
    digests = {path.name: file_digest(path) for path in sorted([*weights, *folder.glob("*.json")])}
    return EmbedderFiles(digest=digest_of(digests), folder=folder, files=tuple(digests))
