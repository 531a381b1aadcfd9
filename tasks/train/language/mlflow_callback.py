"""Log a tuning to MLflow: each stage's metrics and sample answers, and the adapter."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import scratch_folder
from tasks.data.language.scorer import scorer_of
from tasks.data.results import BaseModelFiles
from tasks.language.answer_scoring import summarise
from tasks.language.messages import user_message
from tasks.train.candidates import CandidateBuilder
from tasks.train.language.stage_context import StageContext

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAMPLES = 4  # answers logged at each evaluation


class MlflowReporter:
    """Logs a stage's metrics and sample answers to its MLflow run, in a few writes a minute."""

    def __init__(self, client: MlflowClient, run_id: str, context: StageContext) -> None:
        self._client, self._run, self._context = client, run_id, context
        self._scorer = scorer_of(context.spec.chat.answer)
        self._metrics: list[Any] = []
        self._written = 0.0

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Buffer the metrics of a step, and flush the buffer every five seconds."""
        from mlflow.entities import Metric

        now = time.time()
        self._metrics += [
            Metric(name, float(value), int(now * 1000), step)
            for name, value in metrics.items()
            if isinstance(value, int | float) and value == value and name not in ("step", "epoch")
        ]
        if now - self._written > 5:
            self.flush()

    def flush(self) -> None:
        """Write the buffered metrics."""
        while self._metrics:
            self._client.log_batch(self._run, metrics=self._metrics[:800])
            self._metrics = self._metrics[800:]
        self._written = time.time()

    def log_samples(self, model: Any, step: int) -> dict[str, float]:
        """Let the model answer a few validation pairs, log the answers as a table, and return their scores."""
        rows = self._context.validation[:SAMPLES]
        texts = self._context.answers(model, rows)
        messages = [user_message(row["messages"]) for row in rows]
        scores = [self._scorer.score(t, r["answer"], m) for t, r, m in zip(texts, rows, messages, strict=True)]
        table = {
            "step": [step] * len(rows),
            "message": messages,
            "answer": texts,
            "right": [row["answer"] for row in rows],
            "exact": [score.exact for score in scores],
        }
        self._client.log_table(self._run, table, "samples.json")
        return {f"sample_{name}": value for name, value in summarise(scores).items()}


def log_model(builder: CandidateBuilder, run_id: str, files: Path, base: BaseModelFiles) -> None:
    """Log an adapter's folder, or the name of the base alone, as a model that can be registered."""
    from mlflow.models import Model as Description

    with scratch_folder(files.parent) as name:
        folder = Path(name) / "model"
        shutil.copytree(files, folder)
        with builder.logged_model(run_id, folder) as logged:
            described = Description(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            )
            described.add_flavor("peft", base=base.source, base_digest=base.digest, version=version("peft"))
            described.save(str(folder / "MLmodel"))
