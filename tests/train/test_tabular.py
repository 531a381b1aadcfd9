from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError, DataError
from tasks.core.mlflow import KEY_TAG, Tracking, mlflow_client
from tasks.core.settings import ROOT
from tasks.features.results import Frame
from tasks.train.config import Train
from tasks.train.results import Candidate
from tasks.train.tabular.fit import read_examples, train
from tasks.train.tabular.model_file import load, predict
from tests.train.frames import (
    AS_OF,
    BY_HASH,
    CLASSES,
    LINEAGE,
    TEXTS,
    VALUES,
    boosting,
    clients,
    diabetes,
    frame_of,
    origin_of,
)

ANOTHER_PROCESS = """
import os, signal, sys
from pathlib import Path
from tasks.features.results import Frame
from tasks.train.tabular import fit as module
from tests.train.frames import BY_HASH, CLASSES, TEXTS, boosting, origin_of
state, case, killed_in = sys.argv[2], sys.argv[3], sys.argv[4]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if killed_in:
    setattr(module, killed_in, die)
frame = Frame.model_validate_json(sys.argv[1])
candidate = module.train(origin_of(case, Path(state)), frame, CLASSES, boosting(TEXTS, BY_HASH))
print(candidate.model_dump_json())
"""


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    return frame_of(clients(), tmp_path_factory.mktemp("frame"))


def trained(frame: Frame, state: Path, case: str = "clients", config: Train | None = None) -> Candidate:
    return train(origin_of(case, state), frame, CLASSES, config or boosting(TEXTS, BY_HASH))


def start_process(frame: Frame, state: Path, case: str, killed_in: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", ANOTHER_PROCESS, frame.model_dump_json(), str(state), case, killed_in],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def runs(state: Path, candidate: Candidate) -> list[str]:
    """Statuses of the runs that computed this candidate."""
    client = mlflow_client(Tracking.in_folder(state))
    experiment = client.get_experiment_by_name(candidate.case)
    key = client.get_run(candidate.run_id).data.tags[KEY_TAG]
    found = client.search_runs([experiment.experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
    return sorted(run.info.status for run in found)


def test_equal_inputs_give_equal_weights_and_metrics_in_any_process(frame: Frame, state: Path) -> None:
    """To the last bit: the file's digest, and every metric, of another process and this one."""
    local = trained(frame, state, "here")
    output, _ = start_process(frame, state, "there").communicate(timeout=120)
    candidates = [local, Candidate.model_validate_json(output.splitlines()[-1])]
    assert candidates[0].run_id != candidates[1].run_id
    assert len({candidate.weights_digest for candidate in candidates}) == 1
    assert len({(candidate.folder / "importance.json").read_bytes() for candidate in candidates}) == 1
    client = mlflow_client(Tracking.in_folder(state))
    metrics = [client.get_run(candidate.run_id).data.metrics for candidate in candidates]
    assert metrics[0] == metrics[1]
    assert metrics[0]["holdout_auc"] > 0.7
    assert (
        trained(frame, state, config=boosting(TEXTS, BY_HASH, max_features=0.5)).weights_digest != local.weights_digest
    )


def test_the_same_training_is_not_done_twice(frame: Frame, state: Path) -> None:
    """The folder answers, for a later moment or commit too; a file that was touched is made again, the same."""
    first = trained(frame, state)
    later = AS_OF.replace(day=2)
    other = origin_of("clients", state, later, {**LINEAGE, "commit": "f" * 40})
    again = train(other, frame, CLASSES, boosting(TEXTS, BY_HASH))
    assert again == first.model_copy(update={"as_of": later})
    (first.folder / "model.skops").write_bytes(b"touched")
    renewed = trained(frame, state)
    assert renewed.weights_digest == first.weights_digest
    assert renewed.run_id != first.run_id
    mlflow_client(Tracking.in_folder(state)).delete_run(renewed.run_id)
    assert trained(frame, state).run_id not in (first.run_id, renewed.run_id)


@pytest.mark.parametrize("at", ["fit", "log_model"])
def test_a_training_killed_anywhere_ends_as_if_undisturbed(frame: Frame, state: Path, at: str) -> None:
    """kill -9 leaves nothing half-written; started again, the orphan is ended as KILLED and the result is the same."""
    process = start_process(frame, state, at, killed_in=at)
    assert process.wait(timeout=120) == -9
    assert not list((state / "candidates" / at).glob("[!.]*"))
    after = trained(frame, state, at)
    assert runs(state, after) == ["FINISHED", "KILLED"]
    assert after.weights_digest == trained(frame, state, "here").weights_digest


def test_a_run_killed_before_its_end_is_ended(frame: Frame, state: Path) -> None:
    """When the folder is there, all is logged: the run only lacks its end."""
    candidate = trained(frame, state, "late")
    client = mlflow_client(Tracking.in_folder(state))
    client.update_run(candidate.run_id, "RUNNING")
    assert trained(frame, state, "late") == candidate
    assert runs(state, candidate) == ["FINISHED"]


def test_mlflow_holds_parameters_data_and_model(frame: Frame, state: Path, tmp_path: Path) -> None:
    """Parameters, data, lineage, pictures; and the model that MLflow loads is the very file of the candidate."""
    import mlflow

    candidate = trained(frame, state)
    place = Tracking.in_folder(state)
    client = mlflow_client(place)
    run = client.get_run(candidate.run_id)
    assert run.data.params["parameters.max_iter"] == "30"
    assert run.data.params["split.share"] == "0.25"
    assert run.data.tags["driftline.commit"] == LINEAGE["commit"]
    assert run.data.tags["driftline.data_digest"] == frame.data_digest
    assert run.data.tags["driftline.weights_digest"] == candidate.weights_digest
    assert run.inputs.dataset_inputs[0].dataset.digest == frame.data_digest[:32]
    listed = {item.path for item in client.list_artifacts(candidate.run_id, "plots")}
    assert listed == {"plots/roc_pr.png", "plots/calibration.png", "plots/importance.png"}
    mlflow.set_tracking_uri(place.uri)
    uri = f"runs:/{candidate.run_id}/model"
    folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path)))
    digest = hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest()
    assert digest == candidate.weights_digest
    assert "scikit-learn==" in (folder / "requirements.txt").read_text()
    rows = read_examples(frame, CLASSES).head(50)
    predictions = predict(load(candidate.folder / "model.skops"), rows, candidate.columns)
    assert np.array_equal(mlflow.sklearn.load_model(uri).predict_proba(rows)[:, 1], predictions)
    served = mlflow.pyfunc.load_model(uri)
    assert served.predict(served.input_example).shape == (3, 2)


def test_importance_finds_what_matters(frame: Frame, state: Path) -> None:
    """Shares that sum to one; the last repayment status leads, as everyone finds on this data."""
    shares = json.loads((trained(frame, state).folder / "importance.json").read_text())
    assert list(shares) == [column.name for column in frame.columns]
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) == "pay_0"


def test_a_regression_is_trained_the_same_way(state: Path, tmp_path: Path) -> None:
    """Another task by declaration alone."""
    config = Train(family="sklearn.ensemble.HistGradientBoostingRegressor", split=BY_HASH, threads=1)
    candidate = train(origin_of("sugar", state), frame_of(diabetes(), tmp_path), VALUES, config)
    metrics = mlflow_client(Tracking.in_folder(state)).get_run(candidate.run_id).data.metrics
    assert metrics["holdout_r2"] > 0.2
    assert candidate.train_rows + candidate.holdout_rows == 442


def test_unsuitable_data_is_refused_and_leaves_nothing(frame: Frame, state: Path, tmp_path: Path) -> None:
    """Missing values for a family that takes none; a target that is no class. The run ends as FAILED."""
    numbers = frame_of(clients()[["example_id", "limit_bal", "age", "target"]], tmp_path)
    config = Train(family="sklearn.linear_model.LogisticRegression", split=BY_HASH, threads=1)
    with pytest.raises(CaseError, match="takes no missing values") as caught:
        trained(numbers, state, "gaps", config)
    assert "limit_bal (13.0% missing)" in str(caught.value)
    client = mlflow_client(Tracking.in_folder(state))
    experiment = client.get_experiment_by_name("gaps")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    assert not list((state / "candidates" / "gaps").iterdir())
    odd = frame_of(clients().assign(target=pd.Series(range(3000))), tmp_path, "f" * 32)
    with pytest.raises(DataError, match="must hold classes"):
        trained(odd, state)


def test_only_the_newest_rows_when_so_declared(frame: Frame, state: Path) -> None:
    """`rows` bounds the cost of a smoke run."""
    config = boosting(TEXTS, BY_HASH).model_copy(update={"rows": 500})
    assert trained(frame, state, config=config).train_rows == 500
