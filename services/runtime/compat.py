"""Internals of Prefect and MLflow that their servers depend on; tests/runtime/test_compat.py checks each of them."""

from __future__ import annotations

import os
from typing import Any


def prefect_app() -> Any:
    """The ASGI application that `prefect server start` runs, so that our guard can wrap it."""
    from prefect.server.api.server import create_app

    return create_app(final=True)


def reload_prefect_settings() -> None:
    """Make Prefect read its settings from the environment again; it reads them only at import."""
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def mlflow_app(uri: str, artifacts: str) -> Any:
    """The ASGI application that `mlflow server` would start, without its other nine processes."""
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # its own checks allow each page of this machine and each private address; the guard's replace them
    os.environ["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifacts
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(uri, uri, artifacts)
    from mlflow.server.fastapi_app import app

    return app
