from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.errors import DriftlineError, InputError
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.release.registry import (
    champion_of_candidate,
    list_releases,
    load_champion,
    promote,
    register,
    resolve_release,
)
from tasks.train.results import Candidate
from tests.release.small import LINEAGE, make_candidate, make_verdict, seal_table

pytestmark = pytest.mark.xdist_group("bento")


@pytest.fixture(scope="module")
def case(state: Path) -> tuple[Path, Path, Candidate]:
    """Two sealed releases of a case of their own."""
    first, other = (make_candidate(state, seed=seed, case="registered") for seed in (0, 1))
    folders = [seal_table(each, make_verdict(each), LINEAGE, state) for each in (first, other)]
    return folders[0], folders[1], first


def test_aliases_move_from_challenger_to_champion(
    tracking: Tracking, state: Path, case: tuple[Path, Path, Candidate]
) -> None:
    """A version a release, however often it is registered; challenger first, champion last; the rest can be found."""
    first, second, candidate = case
    assert load_champion(tracking, state, "registered") is None
    one = register(tracking, first)
    assert register(tracking, first) == one
    assert _aliases(tracking, one.version) == ["challenger"]
    assert load_champion(tracking, state, "registered") is None
    promote(tracking, one)
    promote(tracking, one)
    assert _aliases(tracking, one.version) == ["champion"]
    assert load_champion(tracking, state, "registered") == one
    assert register(tracking, first) == one
    assert _aliases(tracking, one.version) == ["champion"]

    two = register(tracking, second)
    assert (two.version, load_champion(tracking, state, "registered")) == ("2", one)
    promote(tracking, two)
    assert load_champion(tracking, state, "registered") == two
    assert _aliases(tracking, one.version) == []
    promote(tracking, one)  # rolling back is moving the alias
    assert load_champion(tracking, state, "registered") == one

    assert list_releases(tracking, state, "registered") == [two, one]
    for reference in (one.digest, one.digest[:6], "1", "v1", "champion"):
        assert resolve_release(tracking, state, "registered", reference) == one
    with pytest.raises(InputError, match=one.digest[:12]):
        resolve_release(tracking, state, "registered", "nope")
    assert champion_of_candidate(tracking, state, candidate, LINEAGE) == one
    assert champion_of_candidate(tracking, state, candidate, {**LINEAGE, "commit": "5" * 40}) is None


def test_a_version_is_the_runs_logged_model(
    tracking: Tracking, state: Path, case: tuple[Path, Path, Candidate]
) -> None:
    """The registered model can be loaded with MLflow itself."""
    release = register(tracking, case[0])
    version = mlflow_client(tracking).get_model_version("registered", release.version)
    assert version.run_id == case[2].run_id
    assert version.tags["release"] == release.digest
    assert (Path(version.source.removeprefix("file://")) / "model.skops").read_bytes() == (
        case[0] / "model.skops"
    ).read_bytes()


def test_a_lost_folder_is_reported(tracking: Tracking, state: Path, case: tuple[Path, Path, Candidate]) -> None:
    one = register(tracking, case[0])
    promote(tracking, one)
    moved = one.folder.rename(one.folder.with_name("moved"))
    with pytest.raises(DriftlineError, match="folder is gone"):
        load_champion(tracking, state, "registered")
    moved.rename(one.folder)


def _aliases(tracking: Tracking, version: str) -> list[str]:
    return list(mlflow_client(tracking).get_model_version("registered", version).aliases)
