"""MLflow's tracking server in one process: python -m services.runtime.mlflow_server PORT

`mlflow server` imports MLflow twice, and starts nine processes for background jobs that are not used: 25-35 s and 1 GB
on two busy cores. This runs only its application: 5 s and 250 MB.
"""

from __future__ import annotations

import re
import sys

from tasks.core.mlflow import Tracking, mlflow_client
from tasks.core.settings import Settings, apply_environment, create_login, settings

# The paths that pages and clients of tracking and registry need. All others are off, also future ones: gateway,
# webhooks, jobs, code that runs in the server, helpers that call a language model, demonstrations.
PATHS = re.compile(
    r"(?!.*/\.\.?(/|$))(/|/health|/version|/graphql|/static-files/.+|/(model-versions/)?get-artifact"
    r"|/(ajax-)?api/2\.0/mlflow-artifacts/.+"
    r"|/(ajax-)?api/2\.0/?mlflow/"
    r"(experiments|metrics|artifacts|registered-models|model-versions|logged-models|traces|unified-traces)(/.+)?"
    r"|/(ajax-)?api/2\.0/mlflow/runs/(?!create-promptlab-run).+"
    r"|/(ajax-)?api/[23]\.0/mlflow/(get-trace-artifact|get-online-trace-details|upload-artifact|server-info)"
    r"|/(ajax-)?api/3\.0/mlflow/(traces|datasets|label-schemas|review-queues)(/.+)?)"
)


def main(config: Settings, port: int) -> None:
    """Serve MLflow's API and pages until a signal ends it."""
    uri, artifacts = config.mlflow_uri, config.mlflow_artifacts
    import uvicorn

    from services.runtime.compat import mlflow_app
    from services.runtime.server_guard import ServerGuard

    mlflow_client(Tracking(uri, artifacts))  # creates a new database, with settings that let flows write meanwhile
    app = ServerGuard(mlflow_app(uri, artifacts), config.host_names, login=create_login(config), paths=PATHS)
    uvicorn.run(app, host=config.host, port=port, log_level="warning", server_header=False)


if __name__ == "__main__":
    from tasks.core.processes import tune_gc

    tune_gc()
    config = settings()  # not from the command line, where other users could read a password in the URI
    apply_environment(config)
    main(config, int(sys.argv[1]))
