"""What MLflow is told of a tuning: a stage's figures as it goes, its sample answers, the pairs, and the adapter."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import scratch_folder
from tasks.data.results import BaseModelFiles
from tasks.language.answer_scoring import summarise
from tasks.language.messages import user_message
from tasks.train.candidates import CandidateBuilder
from tasks.train.language.rewards import scorer_of
from tasks.train.language.stage_context import StageContext

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAMPLES = 4  # answers shown at each look


class MlflowReporter:
    """Puts a stage's figures and sample answers into its MLflow run, a few writes a minute."""

    def __init__(self, client: MlflowClient, run_id: str, work: StageContext) -> None:
        self._client, self._run, self._work = client, run_id, work
        self._scorer = scorer_of(work.talk.answer)
        self._metrics: list[Any] = []
        self._written = 0.0

    def tell(self, figures: Mapping[str, float], at: int) -> None:
        """Keep figures of a step, and write those kept when the last were written long enough ago."""
        from mlflow.entities import Metric

        now = time.time()
        self._metrics += [
            Metric(name, float(value), int(now * 1000), at)
            for name, value in figures.items()
            if isinstance(value, int | float) and value == value and name not in ("step", "epoch")
        ]
        if now - self._written > 5:
            self.flush()

    def flush(self) -> None:
        """Write what is kept."""
        while self._metrics:
            self._client.log_batch(self._run, metrics=self._metrics[:800])
            self._metrics = self._metrics[800:]
        self._written = time.time()

    def show(self, model: Any, at: int) -> dict[str, float]:
        """Have the model answer a few validation pairs, put the answers into a table, and give their scores."""
        rows = self._work.validation[:SAMPLES]
        texts = self._work.answers(model, rows)
        messages = [user_message(row["messages"]) for row in rows]
        scores = [self._scorer.score(t, r["answer"], m) for t, r, m in zip(texts, rows, messages, strict=True)]
        table = {
            "step": [at] * len(rows),
            "message": messages,
            "answer": texts,
            "right": [row["answer"] for row in rows],
            "exact": [score.exact for score in scores],
        }
        self._client.log_table(self._run, table, "samples.json")
        return {f"sample_{name}": value for name, value in summarise(scores).items()}


def log_adapter(making: CandidateBuilder, run_id: str, adapter: Path, base: BaseModelFiles) -> None:
    """Log the adapter as a model, so that it can be registered; it is read by peft, with the base that it names."""
    from mlflow.models import Model as Description

    with scratch_folder(adapter.parent) as name:
        folder = Path(name) / "model"
        shutil.copytree(adapter, folder)
        with making.logged_model(run_id, folder) as made:
            described = Description(
                artifact_path=made.artifact_location, run_id=run_id, model_uuid=made.model_id, model_id=made.model_id
            )
            described.add_flavor("peft", base=base.source, base_digest=base.digest, version=version("peft"))
            described.save(str(folder / "MLmodel"))
