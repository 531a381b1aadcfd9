from collections.abc import Iterator

import pytest

from tests.release.small import (  # noqa: F401 (fixtures)
    bento,
    candidate,
    environment,
    folder,
    second,
    state,
    tracking,
)
from tests.runtime.servers import Servers, running


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Prefect's and MLflow's, whose login only their state folder has."""
    with running(tmp_path_factory.mktemp("servers")) as servers:
        yield servers
