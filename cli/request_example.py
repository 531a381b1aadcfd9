"""The `curl` line at the end of `driftline run`: a request that works, with a real row of the hold-out."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from services.runtime import stack
from services.store.database import Store
from services.store.keys import read_keyring
from tasks.core.console import console
from tasks.core.files import write_text
from tasks.core.local_secrets import OPERATOR, secret_file
from tasks.core.settings import LOOPBACK_NAMES, Settings, settings
from tasks.release.results import Release
from tasks.release.seal import GOLDEN, SCORES, read_manifest

LONGEST = 400  # characters of a row on the line; a longer one goes into a file


def print_request(release: Release) -> None:
    """Print the line, and before it `driftline up` where the stack is down."""
    config = settings()
    down = [] if stack.is_running(config) else ["driftline up"]
    console.print("request a prediction, here of a row of the hold-out:", markup=False)
    for line in [*down, request_line(release, config)]:
        print(f"  {line}")


def request_line(release: Release, config: Settings) -> str:
    """A request for one row, with a key where the gateway demands one."""
    body = json.dumps({"rows": [example_row(release.folder)]}, ensure_ascii=False)
    data = shlex.quote(body)
    if len(body) > LONGEST:
        path = write_text(config.state / "requests" / f"{release.case}.json", body)
        data = shlex.quote(f"@{_near(path)}")
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    return f"curl -s http://{host}:{config.gateway_port}/v1/predict/{release.case}{_header(config, host)} -d {data}"


def example_row(folder: Path) -> dict[str, Any]:
    """The first scored example of a release: what a request carries, and the keys of what is looked up."""
    import pyarrow.parquet as pq

    sealed = read_manifest(folder)["sealed"]
    golden = json.loads((folder / GOLDEN).read_bytes())[0]
    names = [column["name"] for column in sealed["columns"] if column["origin"] == "request"]
    row = {name: golden["features"][name] for name in names}
    if keys := [key for key in sealed["entities"] if key not in row]:
        wanted = [("example_id", "=", golden["example_id"])]
        row |= pq.read_table(folder / SCORES, columns=keys, filters=wanted).to_pylist()[0]
    return {name: _short(value) for name, value in row.items()}


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _header(config: Settings, host: str) -> str:
    """Empty where the gateway takes requests of this user without a key."""
    with closing(Store(config)) as store:
        is_open = not read_keyring(store).guarded and host in LOOPBACK_NAMES and sys.platform == "linux"
    if is_open:
        return ""
    secret = "$DRIFTLINE_KEY"
    if not os.environ.get("DRIFTLINE_KEY"):
        secret = f"$(cat {shlex.quote(str(_near(secret_file(config.state, OPERATOR))))})"
    return f' -H "Authorization: Bearer {secret}"'


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
