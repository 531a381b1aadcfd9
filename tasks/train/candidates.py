"""What candidates of both kinds share: the cache key, the folder, and the MLflow run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tasks.core.files import atomic_path
from tasks.core.mlflow import get_or_create_experiment, mlflow_client, run_status, start_run
from tasks.core.progress import mark_cached
from tasks.features.results import Column
from tasks.train.results import Candidate, Origin

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

CANDIDATE_FILE = "candidate.json"  # in a candidate's folder
ENERGY_METRIC = "gpu_energy_wh"  # metric of a stage's run on a GPU that reports its power
DEVICE_TAG = "driftline.device"  # tag of a run: its GPU, if it had one


@dataclass(frozen=True)
class CandidateRun:
    """The MLflow run of a candidate, and the folder that the run fills."""

    run_id: str
    folder: Path


@dataclass(frozen=True)
class CandidateBuilder:
    """Builds one candidate. The digest of its inputs names its folder, so equal inputs find an existing candidate."""

    origin: Origin
    key: str  # digest of all inputs
    examples: Path  # a frame, or a folder of pairs
    data_digest: str
    definitions_digest: str
    imported: str | None = None  # SHA-256 of the imported file; None: trained by this platform

    @property
    def folder(self) -> Path:
        return self.origin.state / "candidates" / self.origin.case / self.key[:16]

    @cached_property
    def client(self) -> MlflowClient:
        return mlflow_client(self.origin.tracking)

    @cached_property
    def experiment_id(self) -> str:
        return get_or_create_experiment(self.client, self.origin.tracking, self.origin.case)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its MLflow run."""
        tags = {
            "case": self.origin.case,
            "as_of": self.origin.as_of.isoformat(),
            "data_digest": self.data_digest,
            "definitions_digest": self.definitions_digest,
            "candidate": str(self.folder),
            **self.origin.lineage,
            **({"imported": self.imported} if self.imported else {}),
        }
        return {f"driftline.{name}": value for name, value in tags.items()}

    def load_existing(self, digest: Callable[[Path], str]) -> Candidate | None:
        """The existing candidate of equal inputs, or None. One with changed weights or a deleted run is removed.

        The folder appears after everything is logged, and the run ends after that. So if a killed process left the
        run RUNNING and the folder exists, the run only has to be terminated.
        """
        if not self.folder.exists():
            return None
        try:
            candidate = Candidate.model_validate_json((self.folder / CANDIDATE_FILE).read_bytes())
            intact = digest(self.folder) == candidate.weights_digest
        except (OSError, ValidationError):
            intact = False
        if intact:
            status = run_status(self.client, candidate.run_id)
            if status == "RUNNING":
                self.client.set_terminated(candidate.run_id, "FINISHED")
            if status in ("RUNNING", "FINISHED"):
                mark_cached()
                current = {"as_of": self.origin.as_of, "folder": self.folder, "frame": self.examples}
                return candidate.model_copy(update=current)
        shutil.rmtree(self.folder)
        return None

    @contextmanager
    def start_run(self, tags: Mapping[str, str] = MappingProxyType({})) -> Iterator[CandidateRun]:
        """Start the MLflow run. The folder is temporary and gets its final name when the block ends."""
        verb = "import" if self.imported else "train"
        name = f"{verb} {self.origin.case} {self.origin.as_of:%Y-%m-%d %H:%M}"
        with (
            start_run(self.client, self.experiment_id, self.key, name, {**self.tags, **tags}) as run_id,
            atomic_path(self.folder) as folder,
        ):
            yield CandidateRun(run_id, folder)

    def log_dataset(self, run_id: str, profile: Mapping[str, int], schema: Mapping[str, Any] | None = None) -> None:
        """Log the training data by its known digest, without reading it again."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=self.origin.case,
            digest=self.data_digest[:32],
            source_type="local",
            source=json.dumps({"uri": self.examples.absolute().as_uri()}),
            schema=json.dumps(schema) if schema else None,
            profile=json.dumps(profile),
        )
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    @contextmanager
    def logged_model(self, run_id: str, folder: Path) -> Iterator[LoggedModel]:
        """Create a logged model, which the block describes in `folder`; then log the folder and finalize the model."""
        from mlflow.entities.logged_model_output import LoggedModelOutput

        client = self.client
        model = client.create_logged_model(self.experiment_id, name="model", source_run_id=run_id, tags=self.tags)
        try:
            yield model
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            client.log_model_artifacts(model.model_id, str(folder))
        except BaseException:
            client.finalize_logged_model(model.model_id, "FAILED")
            raise
        client.finalize_logged_model(model.model_id, "READY")

    def save(
        self,
        run: CandidateRun,
        weights: str,
        columns: tuple[Column, ...],
        *,
        train_rows: int,
        holdout_rows: int,
        without_target: int = 0,
    ) -> Candidate:
        """Write the candidate's record, after all other files of its folder."""
        candidate = Candidate(
            case=self.origin.case,
            as_of=self.origin.as_of,
            run_id=run.run_id,
            folder=self.folder,
            weights_digest=weights,
            frame=self.examples,
            data_digest=self.data_digest,
            definitions_digest=self.definitions_digest,
            columns=columns,
            train_rows=train_rows,
            holdout_rows=holdout_rows,
            without_target=without_target,
            imported=self.imported,
        )
        (run.folder / CANDIDATE_FILE).write_text(candidate.model_dump_json(indent=2), encoding="utf-8")
        return candidate
