"""kill -9 in the middle of every step, each time started again: the end is that of a run nobody disturbed."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tasks.core.mlflow import Tracking, mlflow_client
from tests.end_to_end.small import make_case
from tests.end_to_end.terminal import Terminal, World


def end_of(terminal: Terminal, world: World) -> dict:
    """What a world holds in the end, but for times and ids."""
    shown = json.loads(terminal.run(world, "show diabetes --json").output)
    recorded = shown["release"].pop("recorded")
    for criterion in shown["verdict"]["criteria"]:
        if criterion["name"].startswith("ms_"):
            criterion.pop("observed")  # a timing
    client = mlflow_client(Tracking.in_folder(world.state))
    found = client.search_model_versions("name = 'diabetes'")
    versions = [client.get_model_version(v.name, v.version) for v in found]  # a search leaves out the aliases
    experiment = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    return {
        "shown": shown,
        "snapshot": recorded["snapshot"],
        "versions": [(version.tags["release"], version.aliases) for version in versions],
        "runs left open": len(client.search_runs(experiment, "attributes.status = 'RUNNING'")),
        "releases": names(world.state / "releases" / "diabetes"),
        "snapshots": names(world.state / "store" / "snapshots" / "diabetes"),
        "bentos": names(world.state / "bentoml" / "bentos" / "diabetes"),
        "remote": names(world.state / "remote"),
    }


def names(folder: Path) -> list[str]:
    """Everything that is there under its own name."""
    found = [path.relative_to(folder) for path in folder.rglob("*")]
    return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))


def test_killed_in_each_step_and_started_again(tmp_path, terminal):
    """Steps that had ended come from cache, and digest, weights, verdict and champion equal the undisturbed run's."""
    make_case(tmp_path / "cases")
    undisturbed, disturbed = (World(tmp_path / name, tmp_path / "cases") for name in ("one", "two"))
    first = terminal.run(undisturbed, "run diabetes")
    assert first.code == 0, first.output
    hit = []
    for number, title in enumerate(first.steps):
        run = terminal.start(disturbed, "run diabetes")
        if not run.wait_for(number):
            break  # it knows that it was done, and did less than it would have
        time.sleep(0.02 if number % 2 else 0.1)
        run.kill()
        done = run.wait()
        assert done.code == -9, done.output
        if title not in done.steps:
            hit.append(title)
    done = terminal.run(disturbed, "run diabetes")
    assert done.code == 0, done.output
    cached = {title for title, how in done.steps.items() if how == "cached"}
    assert {"validate patients", "snapshot", "build training features", "train a candidate"} <= cached
    assert len(hit) >= len(first.steps) - 5, hit  # some steps last less than a blink
    assert end_of(terminal, disturbed) == end_of(terminal, undisturbed)
