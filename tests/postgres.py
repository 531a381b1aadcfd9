"""A real PostgreSQL for a test, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.serving.process import free_port
from tests.waiting import wait_for


class Postgres:
    """A server of this test's own. Raises: Skipped where none is installed."""

    def __init__(self, folder: Path) -> None:
        self._programs = next((p.parent for p in places("postgres") if p.with_name("initdb").exists()), None)
        if self._programs is None:
            pytest.skip("no Postgres is installed")
        self._folder, self.port = folder, free_port()
        self._as = ["setpriv", "--reuid=nobody", f"--regid={pwd.getpwnam('nobody').pw_gid}", "--clear-groups"]
        if os.geteuid():
            self._as = []
        else:  # it refuses to run as root
            shutil.chown(folder, "nobody")
            self._as += ["--pdeathsig=INT"]
        command = [self._programs / "initdb", "-D", folder / "data", "-U", "driftline", "--auth=trust", "--no-sync"]
        subprocess.run([*self._as, *command], cwd=folder, capture_output=True, check=True)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://driftline@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        log = self._folder / "postgres.log"
        command = [self._programs / "postgres", "-D", self._folder / "data", "-p", str(self.port), "-F", "-k", ""]
        with log.open("wb") as output:
            self._process = subprocess.Popen([*self._as, *command], cwd=self._folder, stdout=output, stderr=output)
        assert wait_for(lambda: "ready to accept connections" in log.read_text()), log.read_text()

    def stop(self) -> None:
        self._process.send_signal(2)  # not waiting for who is connected
        self._process.wait(20)


def places(program: str) -> list[Path]:
    on_path = [Path(found)] if (found := shutil.which(program)) else []
    return [path.resolve() for path in (*on_path, *sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}")))]


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Raises: Skipped where none is installed."""
    with tempfile.TemporaryDirectory(prefix="driftline-postgres-") as folder:  # pytest's own folders are root's alone
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
