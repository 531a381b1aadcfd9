"""Sentence embeddings, from a model folder as transformers saves it, or with ONNX weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tasks.core.config import digest_of
from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.core.untrusted import reading_untrusted

if TYPE_CHECKING:
    import numpy as np

BATCH = 64
MAX_TOKENS = 256  # of each text; the rest is truncated, as in the training of common models
ONNX = "model.onnx"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def embedder_files(folder: Path, tokenizer: Path | None = None) -> dict[str, Path]:
    """The files of a model by name: weights, configuration and tokenizer, which may lie in a folder of its own."""
    weights = sorted(folder.glob("*.safetensors")) or [folder / ONNX]
    others = [path for path in sorted(folder.glob("*.json")) if not tokenizer or path.name not in TOKENIZER]
    found = [*weights, *others, *(path for name in TOKENIZER if tokenizer and (path := tokenizer / name).is_file())]
    return {path.name: path for path in found}


def digest_of_files(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of a model's files, hex."""
    return digest_of({name: file_digest(path) for name, path in files.items()})


class Embedder:
    """An embedding model; not thread-safe. Its weights are loaded with the first text, which takes seconds.

    They raise DataError then, when they need a package that is not installed, or are damaged.
    """

    def __init__(self, folder: Path, tokenizer: Path | None = None) -> None:
        from tokenizers import Tokenizer

        self.folder = folder
        self._files = embedder_files(folder, tokenizer)
        path = str((tokenizer or folder) / TOKENIZER[0])
        self._whole, self._truncating = Tokenizer.from_file(path), Tokenizer.from_file(path)
        for each in (self._whole, self._truncating):
            each.no_padding()
        self._whole.no_truncation()
        self._truncating.enable_truncation(MAX_TOKENS)

    @cached_property
    def _network(self) -> _Network:
        return _Onnx(self.folder / ONNX) if ONNX in self._files else _Torch(self.folder)

    @property
    def size(self) -> int:
        """Dimensions of a vector."""
        return self._network.size

    @cached_property
    def digest(self) -> str:
        """Digest of the model's files."""
        return digest_of_files(self._files)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, with special tokens."""
        return [len(each.ids) for each in self._whole.encode_batch(list(texts))]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, one a text: the mean over its first tokens. Shape: texts x size, float32."""
        import numpy as np

        ids = [each.ids for each in self._truncating.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # batches of similar lengths need little padding
        vectors = np.empty((len(ids), self.size), np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            tokens = np.zeros((len(batch), max(len(ids[i]) for i in batch)), np.int64)
            mask = np.zeros_like(tokens)
            for row, i in enumerate(batch):
                tokens[row, : len(ids[i])], mask[row, : len(ids[i])] = ids[i], 1
            vectors[batch] = self._network.means(tokens, mask)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Compute in one thread: the last bits of a vector depend on how many there are."""
        with self._network.one_thread():
            yield


class _Network(Protocol):
    size: int

    def means(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The mean of the tokens' vectors of each text. Shapes: texts x tokens; texts x size."""

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Compute in one thread."""
        yield


class _Torch:
    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            self._model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False).eval()
        finally:
            logging.enable_progress_bar()
        self.size = int(self._model.config.hidden_size)

    def means(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            weights = torch.from_numpy(mask)
            states = self._model(input_ids=torch.from_numpy(tokens), attention_mask=weights).last_hidden_state
            means: np.ndarray = ((states * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)).numpy()
        return means

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class _Onnx:
    """Weights in ONNX, such as int8 ones. Always one thread."""

    def __init__(self, path: Path) -> None:
        try:
            from onnxruntime import InferenceSession, SessionOptions
        except ImportError as error:
            raise DataError(
                "The package onnxruntime is not installed.", where=str(path), todo="Install the extra int8."
            ) from error
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with reading_untrusted("The embedder's weights can't be read.", path, allowed="a model in ONNX"):
            self._session: Any = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self._inputs = {each.name for each in self._session.get_inputs()}
            self.size = int(self._session.get_outputs()[0].shape[-1])

    def means(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import numpy as np

        values = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        states = self._session.run(None, {name: values[name] for name in values if name in self._inputs})[0]
        means: np.ndarray = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return means

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        yield
