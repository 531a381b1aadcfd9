"""Embeddings in OpenAI's form, from the embedder that a release holds."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tasks.language.chat_request import OpenAIRequest
from tasks.language.embedder import MAX_TOKENS, Embedder

if TYPE_CHECKING:
    import numpy as np

MAX_TEXTS = 256  # texts in a request: the longest take half a minute on one core


def _parse_input(value: Any) -> list[str]:
    """One text or several; OpenAI also accepts token ids, of its own tokenizers."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a text or a list of texts is taken; token ids are not")
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise ValueError(f"{len(texts):,} texts; 1 to {MAX_TEXTS} are taken")
    if empty := [i for i, text in enumerate(texts) if not text.strip()]:
        raise ValueError(f"text {empty[0]} is empty")
    return texts


class EmbeddingsRequest(OpenAIRequest):
    """A request in OpenAI's form."""

    input: Annotated[list[str], BeforeValidator(_parse_input)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None


class Embeddings:
    """The embedder, opened by the first request: a service that only chats does not pay for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: Embedder | None = None
        self._thread = ThreadPoolExecutor(1)  # one request at a time: each is a batch that uses all cores

    async def create(self, request: EmbeddingsRequest) -> dict[str, Any]:
        """OpenAI's response, without the model's name.

        Raises: ValueError when a text is too long, or the requested dimensions are not the embedder's.
        """
        running = asyncio.get_running_loop()
        vectors, tokens = await running.run_in_executor(self._thread, self._embed, request)
        data = [
            {"object": "embedding", "index": i, "embedding": _encode(vector, request.encoding_format)}
            for i, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    def _embed(self, request: EmbeddingsRequest) -> tuple[np.ndarray, int]:
        self._opened = opened = self._opened or Embedder(self._folder)
        if request.dimensions not in (None, opened.size):
            raise ValueError(f"dimensions: {opened.size} is what there is")
        counts = opened.tokens(request.input)
        if long := [(i, count) for i, count in enumerate(counts) if count > MAX_TOKENS]:
            raise ValueError(f"text {long[0][0]} has {long[0][1]:,} tokens; up to {MAX_TOKENS} are read")
        return opened.encode(request.input), sum(counts)


def _encode(vector: np.ndarray, encoding: str) -> list[float] | str:
    """As numbers, or as base64 of little-endian float32, which OpenAI's client requests."""
    return vector.tolist() if encoding == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode()
