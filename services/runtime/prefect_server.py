"""Prefect's server: python -m services.runtime.prefect_server HOST PORT

It runs the application of `prefect server start` behind a guard.
"""

from __future__ import annotations

import os
import sys

from tasks.core.processes import tune_gc
from tasks.core.settings import AUTH_STRINGS, apply_environment, create_login, settings


def main(host: str, port: int) -> None:
    """Serve until a signal ends it; Prefect's own variables configure the rest."""
    tune_gc()
    config = settings()
    os.environ[AUTH_STRINGS[0]] = create_login(
        config
    )  # Prefect checks it itself: a WebSocket sends it in its first message
    apply_environment(config)
    import uvicorn
    from prefect.settings import get_current_settings

    from services.runtime.compat import prefect_app
    from services.runtime.server_guard import ServerGuard

    options = get_current_settings().server
    uvicorn.run(
        ServerGuard(prefect_app(), config.host_names),
        host=host,
        port=port,
        timeout_keep_alive=options.api.keepalive_timeout,
        ws_ping_interval=options.api.websocket_ping_interval,
        ws_ping_timeout=options.api.websocket_ping_timeout,
        log_level=options.logging_level.lower(),
        server_header=False,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
