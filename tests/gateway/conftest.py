from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.deployed.servers import servers
from services.runtime import stack
from services.store.database import Store
from tasks.core.settings import Settings
from tasks.release.results import Release
from tests.gateway.stack import language_release, serve, small_settings
from tests.release.small import bento, candidate, folder, second, state, tracking  # noqa: F401 (fixtures)


@pytest.fixture(autouse=True)
def own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway in this process counts by itself, also after a test that let BentoML share its metrics' folder."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


@pytest.fixture(scope="session")
def upstream_key() -> Iterator[str]:
    """The key of a model's server, in the environment that all releases of the stack get."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPSTREAM_TEST_KEY", "a-key-of-tests")
        yield "a-key-of-tests"


@pytest.fixture(scope="session")
def settings(
    state: Path,  # noqa: F811
    bento: str,  # noqa: F811
    upstream_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """A stack with a gateway that no key guards."""
    settings = small_settings(tmp_path_factory.mktemp("gateway") / "state", state / "bentoml")
    try:
        stack.up(settings, servers(settings))
        yield settings
    finally:
        stack.down(settings)


@pytest.fixture(scope="session")
def table(settings: Settings, folder: Path) -> Release:  # noqa: F811
    """The champion of the tabular case."""
    return serve(settings, folder)


@pytest.fixture(scope="session")
def other(settings: Settings, table: Release, second: Path) -> Release:  # noqa: F811
    """Another release of it that runs, without a share."""
    return serve(settings, second, champion=False)


@pytest.fixture(scope="session")
def talker(settings: Settings, state: Path) -> Release:  # noqa: F811
    """The champion of the language case."""
    return serve(settings, language_release(state))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store(settings)
    yield store
    store.close()
