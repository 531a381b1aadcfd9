"""One retrain that is killed again and again, each time at another stage and another victim, and how it has to end."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml

from services.rollout.champion_sync import champion_at_gateway
from services.rollout.history import rollout_history
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.monitor.attempts import attempts
from tests.end_to_end.home import ENDED, Home
from tests.end_to_end.small import CHANGED, change_case
from tests.end_to_end.terminal import Terminal
from tests.waiting import wait_for

HALF_PROMOTED = "promote"
STAGES = {  # of a deployed retrain, in their order: the step of each that takes longest
    "prepare": "validate",
    "features": "build features",
    "monitor": "measure",
    "train": "train a candidate",
    "evaluate": "judge",
    "package": "package",
    "serve": "serve",
    HALF_PROMOTED: "promote",
}
VICTIMS: dict[str, Callable[[Home, str], None]] = {
    "flow": lambda home, case: home.kill_run("retrain", case),
    "worker": lambda home, case: home.kill_program("worker"),
    "server": lambda home, case: home.kill_program("prefect"),
    "everything": lambda home, case: home.kill_all(),
}
Kill = tuple[str, str]  # a victim, and the stage that it is killed in


def outlives(home: Home, terminal: Terminal, case: str, kills: Iterable[Kill]) -> None:
    """Retrain a case, kill in the order given, and hold that it ends in a true state, done once, with nothing lost."""
    last_longer(home.world.cases / case)
    before = home.world.champion(case)
    home.start("retrain", case, as_of=CHANGED)
    killed = []
    for victim, stage in kills:
        if stage == HALF_PROMOTED:
            with half_promoted(home, case, before):
                VICTIMS[victim](home, case)
        else:
            assert home.reached("retrain", case, STAGES[stage]), (stage, home.runs("retrain", case))
            killed.append((stage, datetime.now(UTC)))
            VICTIMS[victim](home, case)
        if victim == "everything":
            done = terminal.run(home.world, "up")
            assert done.code == 0, done.output

    assert wait_for(lambda: "COMPLETED" in home.states("retrain", case), 240), home.runs("retrain", case)
    assert wait_for(lambda: set(home.states("retrain", case)) <= ENDED, 30), "no run stays for ever"
    assert home.states("retrain", case).count("COMPLETED") == 1
    missed = [stage for stage, at in killed if not home.was_at("retrain", case, STAGES[stage], at)]
    assert not missed, f"what was to be killed in the middle was over, or had not begun: {missed}"

    after = home.world.champion(case)
    assert after != before
    assert home.at_gateway(case) == after, "registry and routes agree"
    assert [attempt.outcome for attempt in attempts(home.world.state, case)] == ["released"]
    client, named = mlflow_client(Tracking.in_folder(home.world.state)), f"name = '{case}'"
    assert len(client.search_model_versions(named)) == 2, "one release more"
    with home.store() as store:
        moved = [move["action"] for move in rollout_history(store, case)[1]]
    assert moved == ["promote", "promote"]


def last_longer(folder: Path) -> None:
    """Have features, training and verdict of a case take seconds, and come to the same."""
    examples = yaml.safe_load((folder / "case.yaml").read_text())["features"]["examples"]
    busy = "(SELECT sum(a.range * b.range % 7) FROM range(15000) a, range(15000) b)"
    change_case(folder, features__examples=f"{examples} WHERE {busy} > 0")
    fit = {"tol": None, "max_iter": 15_000}  # without a tolerance it never ends before
    change_case(folder, train__family="sklearn.linear_model.SGDRegressor", train__parameters=fit)
    change_case(folder, train__split__holdout="14d", evaluate__champion_gate__resamples=100_000)


@contextmanager
def half_promoted(home: Home, case: str, before: str) -> Iterator[None]:
    """Hold a run where its release has the traffic and the registry doesn't know it; Prefect's server may be gone."""
    challenger = "SELECT 1 FROM registered_model_aliases WHERE name = ? AND alias = 'challenger'"
    with closing(sqlite3.connect(home.world.state / "mlflow.db", timeout=30, isolation_level=None)) as registry:
        # to be named so is the last that is written before the promotion
        named = wait_for(lambda: registry.execute(challenger, [case]).fetchone(), 240, pause=0.02)
        assert named, home.runs("retrain", case)
        registry.execute("BEGIN IMMEDIATE")  # whoever would write waits; until the promotion nobody would
        assert wait_for(lambda: champion_at_gateway(case, home.settings) != before, 60), home.runs("retrain", case)
        yield
        assert champion_at_gateway(case, home.settings) != before == home.world.champion(case)
