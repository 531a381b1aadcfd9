"""The servers of the local stack, as programs of its supervisor."""

from __future__ import annotations

import sys

from services.runtime.process_specs import GATEWAY
from services.runtime.supervision import Program
from tasks.core.settings import Settings


def servers(settings: Settings) -> list[tuple[Program, str]]:
    """The servers that this stack runs, each with the setting of its port."""
    servers: list[tuple[Program, str]] = []
    if not settings.prefect_url:
        root = f"http://{settings.host}:{settings.prefect_port}"
        program = Program(
            name="prefect",
            command=_module("services.runtime.prefect_server", settings.host, str(settings.prefect_port)),
            host=settings.host,
            port=settings.prefect_port,
            health="/api/health",
            # its pages use the host name by which they were opened
            environment={"PREFECT_UI_API_URL": "/api", "PREFECT_API_URL": f"{root}/api"},
            starts_with_supervisor=False,
        )
        servers.append((program, "DRIFTLINE_PREFECT_PORT"))
    if not settings.tracking_url.startswith("http"):
        program = _own("mlflow", "services.runtime.mlflow_server", settings.host, settings.mlflow_port, "/health")
        servers.append((program, "DRIFTLINE_MLFLOW_PORT"))
    if settings.worker:
        program = _own("worker", "flows.deployed.worker", settings.host, settings.worker_port, "/health")
        servers.append((program, "DRIFTLINE_WORKER_PORT"))
    program = _own(GATEWAY, "services.gateway.server", settings.host, settings.gateway_port, "/readyz")
    program = program.model_copy(update={"command": [*program.command, str(settings.gateway_workers)]})
    servers.append((program, "DRIFTLINE_GATEWAY_PORT"))
    return servers


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _own(name: str, module: str, host: str, port: int, health: str) -> Program:
    """A server that is a module of this repository, with its port as argument."""
    return Program(
        name=name, command=_module(module, str(port)), host=host, port=port, health=health, starts_with_supervisor=False
    )
