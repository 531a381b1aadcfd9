"""Promise: internals that the servers need are there; a failure names the package and what a new version changed."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import version

import pytest


@pytest.mark.parametrize(
    ("package", "module", "name"),
    [
        ("prefect", "prefect.server.api.server", "create_app"),
        ("prefect", "prefect.context", "refresh_global_settings_context"),
        ("mlflow", "mlflow.server.constants", "BACKEND_STORE_URI_ENV_VAR"),
        ("mlflow", "mlflow.server.constants", "ARTIFACT_ROOT_ENV_VAR"),
        ("mlflow", "mlflow.server.constants", "SERVE_ARTIFACTS_ENV_VAR"),
        ("mlflow", "mlflow.server.handlers", "initialize_backend_stores"),
        ("mlflow", "mlflow.server.fastapi_app", "app"),
    ],
)
def test_a_package_has_what_its_server_needs(package: str, module: str, name: str):
    assert hasattr(importlib.import_module(module), name), f"{package} {version(package)} lacks {module}.{name}."


def test_parameters_are_those_that_we_pass():
    from mlflow.server.handlers import initialize_backend_stores
    from prefect.server.api.server import create_app

    assert "final" in inspect.signature(create_app).parameters, f"prefect {version('prefect')}: create_app"
    inspect.signature(initialize_backend_stores).bind("uri", "uri", "artifacts")
