"""The fork server of deployed runs: python -m flows.deployed.fork_server SOCKET

A run needs some eight seconds of a core to import its packages. Here they are imported for the first run, and the next
ones are forks. Our own code is not: a run may be of another commit.
"""

from __future__ import annotations

import atexit
import os
import runpy
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from tasks.serve.fork_server import import_all, serve

IDLE = 600.0  # seconds without a run until the 500 MB are given back
RUNNING = """
    dvc.repo evidently great_expectations great_expectations.expectations httpx matplotlib.figure mlflow.sklearn
    mlflow.store.model_registry.sqlalchemy_workspace_store mlflow.store.tracking.sqlalchemy_workspace_store
    prefect.deployments.steps.core prefect.flow_engine prefect.task_engine prefect.utilities.visualization psutil
    networkx scmrepo.git sklearn.ensemble sklearn.linear_model supervisor.xmlrpc
"""


def import_for_runs() -> None:
    """Import what a run needs, and have SQLAlchemy settle all tables, as it else would at a first query."""
    import_all(RUNNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("sqlalchemy.orm").configure_mappers()


def run(arguments: Sequence[str], _: Sequence[int] = ()) -> None:
    """Do what `python -m` does in a new process: read its variables, and look for code where they say."""
    import numpy as np
    from prefect.context import refresh_global_settings_context

    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    np.random.seed()  # else every fork draws the same
    refresh_global_settings_context()
    sys.argv = [*arguments]
    sys.modules.pop(arguments[0], None)
    code: object = 0
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))  # taking 3,000 modules down takes half a second


if __name__ == "__main__":
    serve(sys.argv[1], import_for_runs, run, IDLE)
