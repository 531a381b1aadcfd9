from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import CaseError, DataError, DriftlineError
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.data.results import BaseModelFiles
from tasks.train.config import Budget
from tasks.train.language.time_budget import TrainingClock
from tasks.train.results import Candidate
from tests.train.pairs import killed_at, stages, tiny_base, tuned, write_pairs

STAGES = stages()
PREFERENCE = {"preference": {"steps": 2, "batch": 4, "pairs": 8, "warmup": 0, "learning_rate": 1e-3}}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelFiles:
    return tiny_base(tmp_path_factory.getbasetemp() / "tiny")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, base: BaseModelFiles, pairs: Path) -> Candidate:
    return tuned(tmp_path_factory.mktemp("undisturbed"), base, pairs, STAGES)


@pytest.fixture(scope="session")
def preferred(
    tmp_path_factory: pytest.TempPathFactory, base: BaseModelFiles, pairs: Path, undisturbed: Candidate
) -> Path:
    """A state folder in which a stage of preferences was tuned further from what the first had left."""
    state = shutil.copytree(undisturbed.folder.parents[2], tmp_path_factory.mktemp("preferred") / "state")
    tuned(state, base, pairs, STAGES | PREFERENCE)
    return state


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory, base: BaseModelFiles, pairs: Path) -> Path:
    """A state folder in which a tuning was killed in its fifth step."""
    state = tmp_path_factory.mktemp("killed")
    killed_at(5, state, base, pairs, STAGES)
    return state


def adapter(candidate: Candidate) -> bytes:
    return (candidate.folder / "adapter" / "adapter_model.safetensors").read_bytes()


def runs(state: Path) -> list[Any]:
    client = mlflow_client(Tracking.in_folder(state))
    return client.search_runs([each.experiment_id for each in client.search_experiments()])


def test_a_candidate_holds_adapter_and_gguf_only(undisturbed: Candidate) -> None:
    """What the later rooms need is there, and no file of a kind that runs code when it is read."""
    files = {str(path.relative_to(undisturbed.folder)) for path in undisturbed.folder.rglob("*") if path.is_file()}
    assert files == {
        "candidate.json",
        "model.gguf",
        "model.f16.gguf",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    assert (undisturbed.folder / "model.gguf").read_bytes()[:4] == b"GGUF"
    config = json.loads((undisturbed.folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"].startswith("package://")
    assert (undisturbed.train_rows, undisturbed.holdout_rows, undisturbed.columns) == (24, 8, ())


def test_a_stage_learns_and_is_logged_as_it_goes(undisturbed: Candidate) -> None:
    """Each stage is a child run with live figures and sample answers, and what it learns lowers the held loss."""
    state = undisturbed.folder.parents[2]
    client = mlflow_client(Tracking.in_folder(state))
    child = next(each for each in runs(state) if each.data.tags.get("mlflow.parentRunId") == undisturbed.run_id)
    assert child.info.status == "FINISHED"
    assert child.data.params["learning_rate"] == "0.01"
    steps = client.get_metric_history(child.info.run_id, "loss")
    assert [point.step for point in steps] == [1, 2, 3, 4, 5, 6]
    assert {"learning_rate", "grad_norm", "tokens_per_second", "memory_gb", "eval_loss"} <= set(child.data.metrics)
    first, last = (point.value for point in client.get_metric_history(child.info.run_id, "eval_loss"))
    assert last < first
    folder = Path(client.download_artifacts(child.info.run_id, "samples.json"))
    table = json.loads(folder.read_text(encoding="utf-8"))
    assert table["columns"] == ["step", "message", "answer", "right", "exact"]
    assert len(table["data"]) == 8  # four answers at each of two looks


def test_the_adapter_can_be_registered(undisturbed: Candidate) -> None:
    """The run has a model that MLflow's registry takes."""
    client = mlflow_client(Tracking.in_folder(undisturbed.folder.parents[2]))
    outputs = client.get_run(undisturbed.run_id).outputs.model_outputs
    model = client.get_logged_model(outputs[-1].model_id)
    client.create_registered_model("travel")
    candidate = client.create_model_version(
        "travel", model.artifact_location, run_id=undisturbed.run_id, model_id=model.model_id
    )
    assert candidate.version in (1, "1")


def test_equal_inputs_give_the_same_candidate_without_training(
    undisturbed: Candidate, base: BaseModelFiles, pairs: Path
) -> None:
    """A run that is started again finds what it candidate, even where the process died before its run ended."""
    state = undisturbed.folder.parents[2]
    client = mlflow_client(Tracking.in_folder(state))
    client.update_run(undisturbed.run_id, status="RUNNING")
    before = len(runs(state))
    assert tuned(state, base, pairs, STAGES) == undisturbed
    assert len(runs(state)) == before
    assert client.get_run(undisturbed.run_id).info.status == "FINISHED"


def test_a_killed_tuning_goes_on_to_the_same_bytes(
    tmp_path: Path, killed: Path, base: BaseModelFiles, pairs: Path, undisturbed: Candidate
) -> None:
    """After kill -9 between two checkpoints, at most one interval is done again, and the adapter's bytes are equal."""
    state = shutil.copytree(killed, tmp_path / "state")
    assert len(list(state.glob("tuning/travel/*/sft/checkpoint-4/sound.json"))) == 1
    again = tuned(state, base, pairs, STAGES)
    assert again.folder.name == undisturbed.folder.name
    assert adapter(again) == adapter(undisturbed)
    assert again.weights_digest == undisturbed.weights_digest
    stage = [each for each in runs(state) if each.data.tags.get("driftline.stage") == "sft"]
    assert sorted(each.info.status for each in stage) == ["FINISHED", "KILLED"]
    whole = next(each for each in stage if each.info.status == "FINISHED")
    history = mlflow_client(Tracking.in_folder(state)).get_metric_history(whole.info.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]  # the steps before the kill are told, too
    assert not list(state.glob("tuning/travel/*/*/checkpoint-*"))


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, killed: Path, base: BaseModelFiles, pairs: Path, undisturbed: Candidate
) -> None:
    """The one before it is taken, with a warning that names it, and the result is still the same."""
    state = shutil.copytree(killed, tmp_path / "state")
    damaged = next(state.glob("tuning/travel/*/sft/checkpoint-4/adapter_model.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=r"checkpoint-4 is damaged \(adapter_model.safetensors\)"):
        again = tuned(state, base, pairs, STAGES)
    assert adapter(again) == adapter(undisturbed)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, base: BaseModelFiles, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage ends with an error that says where, nothing is promoted, and no checkpoint holds the bad weights."""
    from trl import SFTTrainer

    computed = SFTTrainer.compute_loss

    def broken(self: Any, *args: Any, **more: Any) -> Any:
        return computed(self, *args, **more) * (math.nan if self.state.global_step == 3 else 1.0)

    monkeypatch.setattr(SFTTrainer, "compute_loss", broken)
    with pytest.raises(DriftlineError, match="Stage sft diverged") as caught:
        tuned(tmp_path, base, pairs, STAGES)
    assert "step 4" in caught.value.where
    assert "checkpoint-2" in caught.value.allowed
    assert not list((tmp_path / "candidates" / "travel").glob("[!.]*"))
    assert {each.info.status for each in runs(tmp_path)} == {"FAILED"}


def test_a_stage_ends_within_its_minutes(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """A stage whose minutes are over ends well."""
    candidate = tuned(tmp_path, base, pairs, stages(steps=5000, minutes=0.05, evaluate_every=5000))
    child = next(each for each in runs(tmp_path) if each.data.tags.get("driftline.stage") == "sft")
    assert child.data.metrics["seconds"] < 10
    assert (candidate.folder / "adapter").is_dir()


def test_the_budget_holds_over_stages_and_processes(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """Of two stages the first ends when time is up, the second is left out and says so; what was spent is logged."""
    long = stages(steps=5000, evaluate_every=5000) | {"preference": {"steps": 5000, "batch": 4, "pairs": 8}}
    budget = {"minutes": 0.1, "price_per_hour": 1.0}
    candidate = tuned(tmp_path, base, pairs, long, budget=budget)
    stage_runs = {each.data.tags.get("driftline.stage", "all"): each.data for each in runs(tmp_path)}
    assert stage_runs["sft"].metrics["seconds"] < 20
    assert "budget" in stage_runs["preference"].tags["driftline.skipped"]
    assert stage_runs["all"].metrics["minutes"] >= 0.1
    assert stage_runs["all"].metrics["cost"] == pytest.approx(stage_runs["all"].metrics["minutes"] / 60)
    assert (candidate.folder / "adapter").is_dir()


def test_time_counts_on_after_a_killed_process(tmp_path: Path) -> None:
    """The budget is of the tuning, not of one of its processes."""
    budget = Budget(minutes=1)
    (tmp_path / "seconds").write_text("55.0")
    clock = TrainingClock(tmp_path / "seconds", budget)
    assert 55 <= clock.seconds < 58
    assert not clock.over()
    assert clock.over(10)
    assert float((tmp_path / "seconds").read_text()) >= 55
    (tmp_path / "seconds").write_text("half a num")
    assert TrainingClock(tmp_path / "seconds", budget).seconds < 5


def test_it_stops_early_and_takes_the_best(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """Looks without a better validation loss end the stage, and the best adapter is the one that is kept."""
    wild = stages(steps=40, evaluate_every=2, patience=1, learning_rate=0.99, warmup=20, clip=100.0)
    candidate = tuned(tmp_path, base, pairs, wild)
    child = next(each for each in runs(tmp_path) if each.data.tags.get("driftline.stage") == "sft")
    looks = mlflow_client(Tracking.in_folder(tmp_path)).get_metric_history(child.info.run_id, "eval_loss")
    values = [point.value for point in looks]
    assert len(values) < 20
    assert values.index(min(values)) == len(values) - 2
    assert (candidate.folder / "adapter").is_dir()


def test_a_further_stage_begins_where_an_earlier_tuning_ended(preferred: Path, undisturbed: Candidate) -> None:
    """The same first stage is not learned again, and its adapter is not changed by what follows."""
    learned = [each.data.tags.get("driftline.stage") for each in runs(preferred)]
    assert sorted(filter(None, learned)) == ["preference", "sft"]
    saved = next(preferred.glob("tuning/travel/*/sft/adapter/adapter_model.safetensors"))
    assert saved.read_bytes() == adapter(undisturbed)


def test_other_documents_train_nothing_anew(
    tmp_path: Path, base: BaseModelFiles, pairs: Path, undisturbed: Candidate
) -> None:
    """Pairs and base decide the adapter: a snapshot with another document gives a candidate with the same one."""
    state = shutil.copytree(undisturbed.folder.parents[2], tmp_path / "state")
    other = tuned(state, base, pairs, STAGES, data="1e.dir")
    assert other.run_id != undisturbed.run_id
    assert adapter(other) == adapter(undisturbed)
    learned = [each.data.tags.get("driftline.stage") for each in runs(state)]
    assert learned.count("sft") == 1


@pytest.mark.parametrize(("method", "paid_by"), [("grpo", "scorers"), ("rloo", "scorers"), ("grpo", "model")])
def test_all_stages_follow_each_other(
    tmp_path: Path, base: BaseModelFiles, pairs: Path, preferred: Path, method: str, paid_by: str
) -> None:
    """Preference and reward tuning start from what the stage before left, and change it."""
    state = shutil.copytree(preferred, tmp_path / "state")
    reward = {"steps": 2, "batch": 4, "answers": 2, "warmup": 0, "learning_rate": 1e-3}
    candidate = tuned(
        state, base, pairs, STAGES | PREFERENCE | {"reward": {**reward, "method": method, "reward": paid_by}}
    )
    learned = [each for each in runs(state) if "driftline.stage" in each.data.tags]
    children = {each.data.tags["driftline.stage"]: each for each in learned}
    assert sorted(children) == ["preference", "reward", "sft"]
    assert len(learned) == 3, "no stage was learned twice"
    assert {each.info.status for each in children.values()} == {"FINISHED"}
    assert "rewards/chosen" in children["preference"].data.metrics
    assert "reward" in children["reward"].data.metrics
    before = {path.read_bytes() for path in preferred.glob("candidates/travel/*/adapter/adapter_model.safetensors")}
    assert len(before) == 2, "of sft alone, and changed by preferences"
    if paid_by == "model":  # the scorers pay the same for all that is noise, and nothing is learned from that
        assert adapter(candidate) not in before


def test_pairs_that_are_too_long_are_named(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """Nothing is cut silently."""
    with pytest.raises(DataError, match="longer than the model may read") as caught:
        tuned(tmp_path, base, pairs, STAGES, max_tokens=40)
    assert "train-0" in caught.value.found


def test_an_empty_split_is_an_error(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """An empty file of pairs is told by its name."""
    import pandas as pd

    folder = write_pairs(tmp_path / "pairs")
    pd.read_parquet(folder / "validation.parquet").head(0).to_parquet(folder / "validation.parquet")
    with pytest.raises(DataError, match="no validation pairs"):
        tuned(tmp_path, base, folder, STAGES)


def test_a_batch_must_divide(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """A micro-batch that does not divide the batch is told before anything is trained."""
    with pytest.raises(CaseError, match="does not divide"):
        tuned(tmp_path, base, pairs, stages(micro_batch=3))


def test_four_bits_need_their_package(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """nf4 without bitsandbytes says what to install."""
    from importlib.util import find_spec

    if find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed here")
    with pytest.raises(CaseError, match="nf4 needs a package") as caught:
        tuned(tmp_path, base, pairs, STAGES, quantize="nf4")
    assert "bitsandbytes" in caught.value.found


def test_accumulated_micro_batches_are_the_same_step(tmp_path: Path, base: BaseModelFiles, pairs: Path) -> None:
    """Half of the batch in memory at once gives the same adapter, to rounding; in bf16 rounding is coarse."""
    from safetensors.torch import load_file

    candidates = [
        tuned(tmp_path / str(micro), base, pairs, stages(micro_batch=micro), precision="fp32") for micro in (2, 4)
    ]
    halves, whole = (load_file(each.folder / "adapter" / "adapter_model.safetensors") for each in candidates)
    worst = max(float((halves[name] - whole[name]).abs().max()) for name in halves)
    assert 0 <= worst < 1e-4, worst
