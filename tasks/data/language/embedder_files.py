"""Finds the sentence-embedding model that a case names, and checks its files."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.untrusted import read_json_object
from tasks.data.language.base_model import weights_in
from tasks.data.origins.local import path_of_uri
from tasks.data.results import EmbedderFiles
from tasks.language.embedder import ONNX, TOKENIZER, digest_of_files, embedder_files

POOLING = Path("1_Pooling") / "config.json"  # where sentence-transformers stores the pooling mode


def find_embedder(source: str, case_folder: Path) -> EmbedderFiles:
    """The files of a model with mean pooling.

    Raises: DataError when a file is missing, the weights are pickles or damaged, or the model uses another pooling.
    """
    weights, _, other = source.partition("#")
    folder = path_of_uri(weights, case_folder)
    tokenizer = path_of_uri(other, case_folder) if other else None
    if (folder / ONNX).is_file():
        if not ((tokenizer or folder) / TOKENIZER[0]).is_file():
            raise DataError(
                "The embedder has no tokenizer.",
                where=source,
                found=f"no {TOKENIZER[0]} in {tokenizer or folder}",
                todo="Name the folder that has it after #: FOLDER#FOLDER.",
            )
    else:
        weights_in(folder, source)
    _check_pooling(folder, source)
    files = embedder_files(folder, tokenizer)
    return EmbedderFiles(digest=digest_of_files(files), folder=folder, tokenizer=tokenizer, files=files)


def _check_pooling(folder: Path, source: str) -> None:
    if not (folder / POOLING).is_file():
        return
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
