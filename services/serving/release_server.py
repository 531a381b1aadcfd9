"""The HTTP server of one release: BentoML's ASGI application of a Bento, under uvicorn, on a Unix socket.

    python -P services/serving/release_server.py BENTO DESCRIPTOR     (of a listening socket)

It imports no module of ours: the release's own code is in its Bento.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

BACKLOG = 2048


def serve(bento: str, listening: socket.socket) -> None:
    """Serve a Bento's folder until a signal ends it."""
    import bentoml
    import uvicorn

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING, force=True)
    for name in ("bentoml", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    # standalone: BentoML may change the working folder, as this process serves nothing else
    service: Any = bentoml.load(bento, standalone_load=True)
    context, tag = bentoml.server_context, service.bento.tag
    # labels of BentoML's Prometheus metrics
    context.service_type, context.service_name = "entry_service", service.name
    context.service_routes = [api.route for api in service.apis.values()]
    context.bento_name, context.bento_version = tag.name, tag.version
    config = uvicorn.Config(
        service.to_asgi(), log_config=None, access_log=False, server_header=False, ws="none", backlog=BACKLOG
    )
    uvicorn.Server(config).run(sockets=[listening])


def main(bento: str, descriptor: int) -> None:
    """Serve in this process."""
    from bentoml.serving import ensure_prometheus_dir

    os.umask(0o077)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = ensure_prometheus_dir()  # Prometheus's client reads it at import
    serve(bento, socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
