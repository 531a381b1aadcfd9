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
    """Start the servers and serve each case's champion; say each address once it is ready."""
    from flows.deployed.servers import servers
    from services.rollout.champion_sync import register_champion
    from services.rollout.shares import sync_endpoints
    from services.runtime import stack
    from services.store.database import Store

    here = settings()
    with console.status("starting ..."):
        stack.up(here, servers(here), lambda service: console.print(f"  ready  {service.name:<34} {service.address}"))
        with closing(Store(here)) as store:
            sync_endpoints(store, here)  # a release may have got another port
            for release in _releases(here):
                register_champion(release, here)
                _serve_champion(store, release.case, here)


def _serve_champion(store: Store, case: str, here: Settings) -> None:
    """Serve the release that has the case's traffic, unless it is; one that can't be served stops no other."""
    from services.rollout.champion_sync import champion_at_gateway, ensure_running
    from services.rollout.history import is_running
    from services.runtime.process_specs import release_program_name

    digest = champion_at_gateway(case, here)
    if digest is None or is_running(store, digest):
        return
    try:
        ensure_running(store, case, digest, here)
        console.print(f"  ready  {release_program_name(case, digest)}")
    except DriftlineError as error:
        console.print(f"  the champion of {case} is not served: {error.what}", markup=False)
        console.print(f"  look at its log, or make another one: driftline run {case}", markup=False)


def restart() -> None:
    """Start everything anew, one after the other; what is not up is started."""
    from flows.deployed.servers import servers
    from services.gateway.rolling_restart import rolling_restart
    from services.runtime import stack

    here = settings()
    if stack.is_running(here):
        with console.status("restarting ..."):
            rolling_restart(here, servers(here), lambda name: console.print(f"  anew   {name}"))
    else:
        start()


def stop() -> None:
    """Stop what was started here."""
    from services.runtime import stack

    console.print("stopped" if stack.down(settings()) else "nothing ran")


def addresses() -> list[tuple[str, str]]:
    """What is ready now, and where."""
    from services.runtime import stack

    ready = [service for service in stack.list_services(settings()) if service.state == "ready"]
    return [(service.name, service.address) for service in ready if service.address]


def _releases(here: Settings) -> list[Release]:
    """The champion of each case that has one."""
    from tasks.release.registry import champion

    if here.mlflow_uri.startswith("sqlite") and not (here.state / "mlflow.db").exists():
        return []
    found = (champion(here.tracking, here.state, case) for case in case_names(here.cases))
    return [release for release in found if release]
