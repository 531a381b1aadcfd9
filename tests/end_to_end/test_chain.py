"""The whole chain on a small regression case: one command to a release, a second that changes nothing, a gate."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.core.files import file_digest
from tasks.release.seal import read_manifest, release_folder
from tests.conftest import ROOT
from tests.end_to_end.small import change_case, make_case
from tests.end_to_end.terminal import World


@pytest.fixture(scope="module")
def shown(world, terminal) -> dict:
    done = terminal.run(world, "show diabetes --json")
    assert done.code == 0, done.output
    return json.loads(done.output)


def test_a_regression_case_runs_from_its_folder_alone(shown):
    """One command goes from a CSV file to a champion; show tells release, metrics and verdict."""
    assert set(shown) == {"release", "metrics", "baselines", "verdict"}
    assert shown["verdict"]["decision"] == "promote"
    assert {"mae", "rmse", "r2"} <= set(shown["metrics"])
    assert 50 < shown["metrics"]["rmse"] < 60
    assert all(c["passed"] and c["required"] and "observed" in c for c in shown["verdict"]["criteria"])
    assert len(shown["release"]["digest"]) == 64


def test_the_command_shows_each_step(world):
    """What the terminal shows: each step with its seconds and figure, and what came of it."""
    output = (world.folder / "first.txt").read_text()
    for part in ("442 rows, 5 expectations", "442 rows x 10 features", "promote: rmse", "promote to champion"):
        assert part in output
    assert "is champion of diabetes" in output
    assert "Traceback" not in output


def test_a_second_run_changes_nothing(world, terminal, shown):
    """Unchanged steps come from cache, the champion is not tested once more, no second one is made, git stays clean."""
    before = git_status()
    done = terminal.run(world, "run diabetes", "status")
    assert done.code == 0, done.output
    cached = {title for title, how in done.steps.items() if how == "cached"}
    assert {"validate patients", "snapshot", "build training features", "train a candidate"} <= cached
    assert not {"package the Bento", "serve and smoke-test"} & set(done.steps)
    assert world.champion("diabetes") == shown["release"]["digest"]
    assert len(list((world.state / "releases" / "diabetes").iterdir())) == 1
    assert git_status() <= before


def git_status() -> set[str]:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def test_a_failed_gate_stops_the_chain(tmp_path, world, terminal, shown):
    """A raised bound: exit code 3, a report with every criterion as observed and required, the champion stays."""
    strict = World(world.folder, tmp_path)
    change_case(
        make_case(tmp_path), evaluate__bounds=[{"metric": "r2", "at_least": 0.9}, {"metric": "mae", "at_most": 60}]
    )
    done = terminal.run(strict, "run diabetes")
    assert done.code == 3, done.output
    assert "the champion stays" in done.output
    for part in ("r2", ">= 0.9", "mae", "<= 60", "ms"):
        assert part in done.output
    assert "Traceback" not in done.output
    assert world.champion("diabetes") == shown["release"]["digest"]


def test_train_tells_the_verdict_and_its_exit_code(tmp_path, world, terminal):
    """`driftline train` ends at the verdict: 0 to promote, 3 otherwise, and releases nothing."""
    strict = World(world.folder, tmp_path)
    change_case(make_case(tmp_path), evaluate__bounds=[{"metric": "r2", "at_least": 0.9}])
    assert terminal.run(world, "train diabetes").code == 0
    assert terminal.run(strict, "train diabetes").code == 3


def test_the_same_steps_without_prefect_give_the_same_weights(tmp_path, world, terminal, shown):
    """What `dvc repro` runs makes the very candidate that the flow released, and the same snapshot."""
    out = tmp_path / "candidate.json"
    fresh = World(tmp_path, world.cases)
    done = terminal.run(fresh, f"plain train diabetes {out}")
    assert done.code == 0, done.output
    assert json.loads(out.read_text())["weights"] == shown["release"]["weights"]
    assert json.loads(out.read_text())["rmse"] == shown["metrics"]["rmse"]


def test_a_release_is_reproduced_byte_for_byte(tmp_path, world, terminal, shown):
    """From its manifest and the DVC remote, in a clean folder; a changed case is refused."""
    shutil.rmtree(world.data / "raw" / "diabetes")
    done = terminal.run(world, "reproduce diabetes --this-code")
    assert done.code == 0, done.output
    assert f"release {shown['release']['digest']}: the same, byte for byte" in done.output
    assert not list((world.state / "reproduce" / "diabetes").iterdir())
    change_case(make_case(tmp_path), train__parameters={"alpha": 0.2})
    done = terminal.run(World(world.folder, tmp_path), "reproduce diabetes --this-code")
    assert done.code == 2
    assert "not the one that was sealed" in done.output


def test_an_external_model_is_released_like_a_trained(tmp_path, terminal):
    """From skops file to champion, once; a pickle is not read, a bad model stops at the gates: the champion stays."""
    import skops.io
    from sklearn.datasets import load_diabetes
    from sklearn.dummy import DummyRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mine = World(tmp_path, tmp_path / "cases")
    make_case(mine.cases)
    table = load_diabetes(as_frame=True)
    for name, model in (("good", make_pipeline(StandardScaler(), Ridge())), ("bad", DummyRegressor())):
        skops.io.dump(model.fit(table.data, table.target), tmp_path / f"{name}.skops")
    (tmp_path / "planted.pkl").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    done = terminal.run(mine, f"import diabetes {tmp_path / 'good.skops'}")
    assert done.code == 0, done.output
    assert "serve and smoke-test" in done.steps
    first = mine.champion("diabetes")
    for name, code in (("good.skops", 0), ("planted.pkl", 2), ("bad.skops", 3)):
        done = terminal.run(mine, f"import diabetes {tmp_path / name}")
        assert (done.code, mine.champion("diabetes")) == (code, first), done.output
    assert not (tmp_path / "ran").exists()
    sealed = read_manifest(release_folder(mine.state, "diabetes", first))["sealed"]
    assert sealed["imported"] == file_digest(tmp_path / "good.skops")


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_monitoring_a_static_table(world, terminal):
    """A table without time is monitored by what was scored; without any, the message says what to do."""
    done = terminal.run(world, "monitor diabetes --as-of 2004-02-01")
    assert "Traceback" not in done.output
    assert done.code == 0, done.output
    assert "There is nothing to monitor yet" in done.output
    assert "driftline predict diabetes FILE" in done.output
