"""Sentence embeddings, from a model folder as transformers saves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

BATCH = 64
MAX_TOKENS = 256  # of each text; the rest is truncated, as in the training of common models


class Embedder:
    """A loaded embedding model. Loading takes seconds; not thread-safe."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        logging.disable_progress_bar()
        try:
            self._network: Any = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False).eval()
        finally:
            logging.enable_progress_bar()

    @property
    def size(self) -> int:
        """Dimensions of a vector."""
        return int(self._network.config.hidden_size)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, with special tokens."""
        return [len(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, one a text: the mean over its first tokens. Shape: texts x size, float32."""
        import numpy as np
        import torch

        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # batches of similar lengths need little padding
        vectors: list[Any] = [None] * len(texts)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                encoded = self._tokenizer(
                    [texts[i] for i in batch], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
                )
                mask = encoded["attention_mask"][..., None]
                mean = (self._network(**encoded).last_hidden_state * mask).sum(1) / mask.sum(1)
                for i, vector in zip(batch, torch.nn.functional.normalize(mean).numpy(), strict=True):
                    vectors[i] = vector
        return np.array(vectors)
