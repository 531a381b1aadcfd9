"""What the train package hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.config import Result, digest_of
from tasks.core.mlflow import Tracking
from tasks.data.config import ChatSpec
from tasks.data.results import BaseModelFiles, EmbedderFiles
from tasks.features.results import Column
from tasks.knowledge.results import KnowledgeSpec
from tasks.train.config import Serving


class LanguageSpec(Result):
    """What a language candidate consists of, besides its adapter."""

    base: BaseModelFiles
    chat: ChatSpec
    serving: Serving
    embedder: EmbedderFiles | None = None  # of serve.embedder
    knowledge: KnowledgeSpec | None = None

    @property
    def definitions_digest(self) -> str:
        """Digest of the prompt, the answer format and the chat template."""
        return digest_of([self.chat.prompt.digest, self.chat.answer.digest, self.base.template_digest])


class Origin(Result):
    """The case, the as-of, the code and the stores of a candidate."""

    case: str
    as_of: datetime
    lineage: dict[str, str]
    state: Path
    tracking: Tracking


class Candidate(Result):
    """A trained model with its MLflow run."""

    case: str
    as_of: datetime
    run_id: str
    folder: Path  # content-addressed; holds model.skops and importance.json, or model.gguf and adapter/
    weights_digest: str  # SHA-256 of model.skops, or over adapter and base; equal for equal inputs and seed
    frame: Path  # the training data: a frame, which tasks.train.tabular.split splits; or a folder of pairs
    data_digest: str
    definitions_digest: str
    columns: tuple[Column, ...]
    train_rows: int  # 0 for an imported model
    holdout_rows: int
    without_target: int = 0  # rows that were left out because their target is empty
    imported: str | None = None  # SHA-256 of the imported file; None: trained by this platform
