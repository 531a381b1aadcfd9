"""What the data stage returns."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import Field

from tasks.core.config import Result
from tasks.language.upstream import UPSTREAM, Upstream

GGUF = "base.gguf"  # for the CPU engine, beside the checkpoint, if that engine supports the model


class TimeWindow(Result):
    """A span of time: start <= moment < end."""

    start: datetime
    end: datetime


class Validation(Result):
    """The results of the expectations on one source's new batches."""

    source: str
    rows: int
    quarantined: dict[str, int]  # rows, by batch
    failed: list[str]  # one sentence each: table-level expectations and batches beyond tolerance; empty: passed
    warnings: list[str]  # one sentence each
    expectations: int
    docs: Path | None  # index.html of the Data Docs
    quarantine: Path | None  # Parquet of the quarantined rows, with batch and reasons


class Snapshot(Result):
    """The validated data of a case as of a moment."""

    case: str
    as_of: datetime
    digest: str  # DVC's content hash, ends in .dir
    path: Path  # folder with SOURCE/BATCH.parquet
    rows: dict[str, int]  # by source
    quarantined: dict[str, int]  # by source
    quarantined_by_batch: dict[str, dict[str, int]] = Field({})  # by source and batch
    docs: dict[str, Path]  # Data Docs by source

    @property
    def card(self) -> Path:
        """Markdown beside the folder: what was read from each source, and what stands for a missing value."""
        return self.path.with_name(f"{self.path.name}.md")


class ValidatedBatches(Result):
    """The validated batches of one source."""

    source: str
    files: dict[str, Path]  # by batch
    rows: int
    quarantined: int
    quarantined_by_batch: dict[str, int] = Field({})
    validation: Validation  # of this run


class BaseModelFiles(Result):
    """A base model, checked against its pin, as a folder that transformers opens."""

    source: str
    digest: str  # SHA-256 of its weights as delivered
    # config.json, model.safetensors, tokenizer.json, tokenizer_config.json, chat_template.jinja; or upstream.json
    folder: Path
    template_digest: str  # SHA-256 of the chat template in use
    parameters: int
    context: int  # the longest context that it supports, in tokens
    upstream: Upstream | None = None  # the server behind whose address it is; None: its weights are in the folder

    @property
    def summary(self) -> str:
        if self.upstream:
            return f"{self.upstream.model} at {self.upstream.address}, {self.digest[:12]}"
        return f"{self.parameters / 1e6:.0f}M parameters, {self.digest[:12]}"

    @property
    def served(self) -> Path:
        """What the engine runs: the weights as GGUF, or the description of the server."""
        return self.folder / (UPSTREAM if self.upstream else GGUF)


class EmbedderFiles(Result):
    """A checked sentence-embedding model, which `tasks.language.embedder.Embedder` opens."""

    digest: str  # over the digests of its files
    folder: Path
    tokenizer: Path | None = None  # folder of its tokenizer, where that is another one
    files: dict[str, Path]  # weights, configuration and tokenizer, by name


class WindowMessages(Result):
    """The messages of a window, in one Parquet file sorted by time and id.

    Its columns: example_id, event_timestamp (UTC), messages (JSON), answer (the expected one as JSON; empty while
    unknown) and intent; for a log also given (the release's response), release, tokens_in, tokens_out, seconds.
    """

    path: Path
    rows: int
    start: datetime | None  # first and last event_timestamp
    end: datetime | None
    digest: str  # of the file
