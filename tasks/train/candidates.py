"""What candidates of every kind share: how they are found again, tagged, and told to MLflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tasks.foundation.tracking import status_of
from tasks.train.results import Candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

RECORD = "candidate.json"  # in a candidate's folder
ENERGY = "gpu_energy_wh"  # metric of a stage's run, where a GPU tells its power
DEVICE = "driftline.device"  # tag of a run: what it ran on, where that was no processor


def made_before(folder: Path, digest: Callable[[Path], str], client: MlflowClient) -> Candidate | None:
    """The candidate in this folder, when its weights and its run are what they were; else the folder is cleared.

    The folder appears when all is logged, and then the run ends. So a run that a killed process left RUNNING after
    that only lacks its end.
    """
    if not folder.exists():
        return None
    try:
        candidate = Candidate.model_validate_json((folder / RECORD).read_bytes())
        sound = digest(folder) == candidate.weights_digest
    except (OSError, ValidationError):
        sound = False
    if sound:
        status = status_of(client, candidate.run_id)
        if status == "RUNNING":
            client.set_terminated(candidate.run_id, "FINISHED")
        if status in ("RUNNING", "FINISHED"):
            return candidate
    shutil.rmtree(folder)
    return None


def tags_of(
    case: str, as_of: datetime, data: str, definitions: str, folder: Path, lineage: Mapping[str, str]
) -> dict[str, str]:
    """What a candidate's run can be searched by."""
    return {
        "driftline.case": case,
        "driftline.as_of": as_of.isoformat(),
        "driftline.data_digest": data,
        "driftline.definitions_digest": definitions,
        "driftline.candidate": str(folder),
        **{f"driftline.{name}": value for name, value in lineage.items()},
    }


def log_dataset(
    client: MlflowClient,
    run_id: str,
    name: str,
    digest: str,
    path: Path,
    profile: Mapping[str, int],
    schema: Mapping[str, Any] | None = None,
) -> None:
    """Name the training data: its hash is known already, so nothing is read or hashed again."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=name,
        digest=digest[:32],
        source_type="local",
        source=json.dumps({"uri": path.absolute().as_uri()}),
        schema=json.dumps(schema) if schema else None,
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


@contextmanager
def logged_model(
    client: MlflowClient, experiment_id: str, run_id: str, tags: Mapping[str, str], folder: Path
) -> Iterator[LoggedModel]:
    """Make a model of MLflow's for the block to describe in `folder`; then the folder is logged, and it is ready."""
    from mlflow.entities.logged_model_output import LoggedModelOutput

    made = client.create_logged_model(experiment_id, name="model", source_run_id=run_id, tags=dict(tags))
    try:
        yield made
        client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
        client.log_model_artifacts(made.model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(made.model_id, "FAILED")
        raise
    client.finalize_logged_model(made.model_id, "READY")
