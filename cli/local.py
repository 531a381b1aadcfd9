"""`driftline up` and `down`: the local stack, and the champion of each case."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from flows.case import case_names
from tasks.core.console import console
from tasks.core.errors import DriftlineError
from tasks.core.settings import Settings, settings

if TYPE_CHECKING:
    from services.store.database import Store
    from tasks.release.results import Release


def start() -> None:
    """Start the servers and each case's champion; print each address once it is ready."""
    from flows.deployed.servers import servers
    from services.rollout.champion_sync import register_champion
    from services.rollout.shares import sync_endpoints
    from services.runtime import stack
    from services.store.database import Store

    config = settings()
    with console.status("starting ..."):
        stack.up(
            config, servers(config), lambda service: console.print(f"  ready  {service.name:<34} {service.address}")
        )
        with closing(Store(config)) as store:
            sync_endpoints(store, config)  # a release's port may have changed
            for release in _releases(config):
                register_champion(release, config)
                _serve_champion(store, release.case, config)


def _serve_champion(store: Store, case: str, config: Settings) -> None:
    """Start the release that has the case's traffic, unless it runs; a failure leaves other cases alone."""
    from services.rollout.champion_sync import champion_at_gateway, ensure_running
    from services.rollout.history import is_running
    from services.runtime.process_specs import release_program_name

    digest = champion_at_gateway(case, config)
    if digest is None or is_running(store, digest):
        return
    try:
        ensure_running(store, case, digest, config)
        console.print(f"  ready  {release_program_name(case, digest)}")
    except DriftlineError as error:
        console.print(f"  the champion of {case} could not be started: {error.what}", markup=False)
        console.print(f"  read its log, or release again: driftline run {case}", markup=False)


def restart() -> None:
    """Restart all processes one by one; start the stack when it is down."""
    from flows.deployed.servers import servers
    from services.gateway.rolling_restart import rolling_restart
    from services.runtime import stack

    config = settings()
    if stack.is_running(config):
        with console.status("restarting ..."):
            rolling_restart(config, servers(config), lambda name: console.print(f"  restarted  {name}"))
    else:
        start()


def stop() -> None:
    """Stop the local stack."""
    from services.runtime import stack

    console.print("stopped" if stack.down(settings()) else "the stack was not running")


def addresses() -> list[tuple[str, str]]:
    """Name and address of each service that is ready."""
    from services.runtime import stack

    ready = [service for service in stack.list_services(settings()) if service.state == "ready"]
    return [(service.name, service.address) for service in ready if service.address]


def _releases(config: Settings) -> list[Release]:
    """The champion of each case that has one."""
    from tasks.release.registry import load_champion

    if config.mlflow_uri.startswith("sqlite") and not (config.state / "mlflow.db").exists():
        return []
    champions = (load_champion(config.tracking, config.state, case) for case in case_names(config.cases))
    return [release for release in champions if release]
