"""MLflow's tracking server in one process.

`mlflow server` imports MLflow twice and starts nine processes for background jobs that we don't have: 25-35 s and 1 GB
on two busy cores. This is the application that it would start, by itself: 5 s and 250 MB.
"""

from __future__ import annotations

import os
import sys

from tasks.foundation.tracking import Tracking, client_of


def main(host: str, port: int, uri: str, artifacts: str) -> None:
    """Serve MLflow's API and pages until told to end; `uri` and `artifacts` say where it keeps things."""
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifacts
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores

    client_of(Tracking(uri, artifacts))  # a new database is made once, and so that a flow may write while we read
    initialize_backend_stores(uri, uri, artifacts)
    uvicorn.run("mlflow.server.fastapi_app:app", host=host, port=port, log_level="warning")


if __name__ == "__main__":
    from tasks.foundation.children import look_for_garbage_seldom
    from tasks.foundation.settings import apply_environment, settings

    look_for_garbage_seldom()
    here = settings()  # not from the command line, where everybody could read a password in the URI
    apply_environment(here)
    main(here.host, int(sys.argv[1]), here.mlflow_uri, here.mlflow_artifacts)
