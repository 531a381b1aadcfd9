"""A process that has imported everything and forks itself for each command.

Each command is a real process that can be killed, but it doesn't pay 20 s of imports; a few tests start cold.
One JSON line in: commands, environment, output (a file), modules to import before; one line out: the process's id. When
it has ended, OUTPUT.end holds its exit code, or minus the signal that ended it.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from sqlalchemy.orm import configure_mappers

from tasks.core.processes import tune_gc
from tasks.features.feast_import import import_feast
from tasks.train.tabular.model_file import import_skops

PACKAGES = """
    dvc.repo evidently great_expectations great_expectations.expectations httpx matplotlib.figure mlflow.sklearn
    mlflow.store.model_registry.sqlalchemy_workspace_store mlflow.store.tracking.sqlalchemy_workspace_store
    prefect.deployments.steps.core prefect.flow_engine prefect.task_engine prefect.utilities.visualization psutil
    networkx scmrepo.git sklearn.ensemble sklearn.linear_model supervisor.xmlrpc
"""
IMPORTS = "flows.release flows.retrain flows.predict flows.monitor flows.backtest cli.terminal"


def main() -> None:
    """Import, say so, then fork for each line; ends with its input."""
    tune_gc()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_skops()
        import_feast()
        for module in (*PACKAGES.split(), *IMPORTS.split()):
            __import__(module)
        configure_mappers()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        for module in request["imports"]:
            __import__(module)
        receive, send = os.pipe()
        if os.fork() == 0:
            os.close(receive)
            _watch(request, send)
            os._exit(0)
        os.close(send)
        with os.fdopen(receive) as pipe:
            print(pipe.read(), flush=True)
    os._exit(0)  # nothing was done here that would need tidying up


def _watch(request: dict, send: int) -> None:
    """Start the command, tell its id, and write down how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(send)
        _become(request)
        _leave(next((code for code in map(_run, request["commands"]) if code), 0))
    os.write(send, str(child).encode())
    os.close(send)
    _, status = os.waitpid(child, 0)
    end = Path(request["output"] + ".end")
    end.with_suffix(".tmp").write_text(str(os.waitstatus_to_exitcode(status)))
    end.with_suffix(".tmp").replace(end)


def _become(request: dict) -> None:
    """Leave the parent's session, streams and variables behind."""
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, stream in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, stream)
    os.environ.update(request["environment"])


def _leave(code: int) -> None:
    """As driftline's own main does."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    atexit._run_exitfuncs()
    os._exit(code)


def _run(command: list[str]) -> int:
    """Do what a new process would: Prefect, imported already, has to read its variables again."""
    from prefect.context import refresh_global_settings_context

    from cli.main import run_command
    from flows.dvc_stages import main as plain
    from services.runtime.prefect_api import reach_prefect
    from tasks.core.errors import DriftlineError
    from tasks.core.settings import apply_environment, settings

    try:
        apply_environment(settings())
        reach_prefect()
        refresh_global_settings_context()
    except DriftlineError:
        pass  # the command tells it
    if command[0] == "plain":
        plain(command[1], command[2], Path(command[3]))
        return 0
    sys.argv = ["driftline", *command]
    return run_command()


if __name__ == "__main__":
    main()
