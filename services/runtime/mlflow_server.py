"""MLflow's tracking server in one process: python -m services.runtime.mlflow_server PORT

`mlflow server` imports MLflow twice and starts nine processes for background jobs that we don't have: 25-35 s and 1 GB
on two busy cores. This is the application that it would start, by itself: 5 s and 250 MB.
"""

from __future__ import annotations

import os
import re
import sys

from tasks.core.mlflow import Tracking, mlflow_client
from tasks.core.settings import Settings, apply_environment, create_login, settings

# What the pages and clients of tracking and of the registry ask for. All else is off, whether known today or not:
# gateway, webhooks, jobs, code that runs in the server, helpers that talk to a language model, demonstrations.
PATHS = re.compile(
    r"(?!.*/\.\.?(/|$))(/|/health|/version|/graphql|/static-files/.+|/(model-versions/)?get-artifact"
    r"|/(ajax-)?api/2\.0/mlflow-artifacts/.+"
    r"|/(ajax-)?api/2\.0/?mlflow/"
    r"(experiments|metrics|artifacts|registered-models|model-versions|logged-models|traces|unified-traces)(/.+)?"
    r"|/(ajax-)?api/2\.0/mlflow/runs/(?!create-promptlab-run).+"
    r"|/(ajax-)?api/[23]\.0/mlflow/(get-trace-artifact|get-online-trace-details|upload-artifact|server-info)"
    r"|/(ajax-)?api/3\.0/mlflow/(traces|datasets|label-schemas|review-queues)(/.+)?)"
)


def main(here: Settings, port: int) -> None:
    """Serve MLflow's API and pages until a signal ends it."""
    uri, artifacts = here.mlflow_uri, here.mlflow_artifacts
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # its own checks allow every page of this machine and every private address; the guard's are in their place
    os.environ["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifacts
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores

    from services.runtime.server_guard import ServerGuard

    mlflow_client(Tracking(uri, artifacts))  # a new database is made once, and so that a flow may write while we read
    initialize_backend_stores(uri, uri, artifacts)
    from mlflow.server.fastapi_app import app

    guarded = ServerGuard(app, here.host_names, login=create_login(here), paths=PATHS)
    uvicorn.run(guarded, host=here.host, port=port, log_level="warning", server_header=False)


if __name__ == "__main__":
    from tasks.core.processes import tune_gc

    tune_gc()
    place = settings()  # not from the command line, where everybody could read a password in the URI
    apply_environment(place)
    main(place, int(sys.argv[1]))
