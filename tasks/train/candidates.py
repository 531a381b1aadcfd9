"""What candidates of every kind share: how they are made, found again, and told to MLflow."""

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

RECORD = "candidate.json"  # in a candidate's folder
ENERGY = "gpu_energy_wh"  # metric of a stage's run, where a GPU tells its power
DEVICE = "driftline.device"  # tag of a run: what it ran on, where that was no processor


@dataclass(frozen=True)
class CandidateBuilder:
    """A candidate in the making, named by all that goes into it: so it is found when it was made before."""

    origin: Origin
    key: str  # digest over all that goes into it
    examples: Path  # a frame, or a folder of pairs
    data_digest: str
    definitions_digest: str
    imported: str | None = None  # SHA-256 of what the model was brought in; None: it is trained here

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
        """What its run can be searched by."""
        told = {
            "case": self.origin.case,
            "as_of": self.origin.as_of.isoformat(),
            "data_digest": self.data_digest,
            "definitions_digest": self.definitions_digest,
            "candidate": str(self.folder),
            **self.origin.lineage,
            **({"imported": self.imported} if self.imported else {}),
        }
        return {f"driftline.{name}": value for name, value in told.items()}

    def made_before(self, digest: Callable[[Path], str]) -> Candidate | None:
        """The candidate that the same inputs made, when its weights and its run are what they were; else it is cleared.

        Its folder appears when all is logged, and then the run ends. So a run that a killed process left RUNNING after
        that only lacks its end.
        """
        if not self.folder.exists():
            return None
        try:
            candidate = Candidate.model_validate_json((self.folder / RECORD).read_bytes())
            sound = digest(self.folder) == candidate.weights_digest
        except (OSError, ValidationError):
            sound = False
        if sound:
            status = run_status(self.client, candidate.run_id)
            if status == "RUNNING":
                self.client.set_terminated(candidate.run_id, "FINISHED")
            if status in ("RUNNING", "FINISHED"):
                mark_cached()
                again = {"as_of": self.origin.as_of, "folder": self.folder, "frame": self.examples}
                return candidate.model_copy(update=again)
        shutil.rmtree(self.folder)
        return None

    @contextmanager
    def begun(self, tags: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[str, Path]]:
        """The id of its MLflow run, and the folder to fill, which gets its name at the end."""
        verb = "import" if self.imported else "train"
        name = f"{verb} {self.origin.case} {self.origin.as_of:%Y-%m-%d %H:%M}"
        with (
            start_run(self.client, self.experiment_id, self.key, name, {**self.tags, **tags}) as run_id,
            atomic_path(self.folder) as folder,
        ):
            yield run_id, folder

    def log_dataset(self, run_id: str, profile: Mapping[str, int], schema: Mapping[str, Any] | None = None) -> None:
        """Name the training data: its hash is known already, so nothing is read or hashed again."""
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
        """A model of MLflow's for the block to describe in `folder`; then the folder is logged, and it is ready."""
        from mlflow.entities.logged_model_output import LoggedModelOutput

        client = self.client
        made = client.create_logged_model(self.experiment_id, name="model", source_run_id=run_id, tags=self.tags)
        try:
            yield made
            client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
            client.log_model_artifacts(made.model_id, str(folder))
        except BaseException:
            client.finalize_logged_model(made.model_id, "FAILED")
            raise
        client.finalize_logged_model(made.model_id, "READY")

    def keep(
        self, run_id: str, folder: Path, weights: str, columns: tuple[Column, ...], train_rows: int, holdout_rows: int
    ) -> Candidate:
        """Write the candidate's record, when all else is in its folder."""
        candidate = Candidate(
            case=self.origin.case,
            as_of=self.origin.as_of,
            run_id=run_id,
            folder=self.folder,
            weights_digest=weights,
            frame=self.examples,
            data_digest=self.data_digest,
            definitions_digest=self.definitions_digest,
            columns=columns,
            train_rows=train_rows,
            holdout_rows=holdout_rows,
            imported=self.imported,
        )
        (folder / RECORD).write_text(candidate.model_dump_json(indent=2), encoding="utf-8")
        return candidate
