"""Prefect's server: python -m tasks.serve.prefect_server HOST PORT, as `prefect server start`, and sooner ready."""

from __future__ import annotations

import runpy
import sys

from tasks.foundation.children import look_for_garbage_seldom


def main(host: str, port: str) -> None:
    """Serve until told to end; all else it reads from Prefect's own variables."""
    look_for_garbage_seldom()
    sys.argv = ["prefect", "server", "start", "--host", host, "--port", port]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
