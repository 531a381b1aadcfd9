"""`driftline up` and `down`: the local stack, and the champion of each case."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from flows.case import names
from flows.terminal import console
from tasks.foundation.errors import DriftlineError
from tasks.foundation.settings import Settings, settings

if TYPE_CHECKING:
    from tasks.ledger.store import Store
    from tasks.release.results import Release


def start() -> None:
    """Start the servers and serve each case's champion; say each address once it is ready."""
    from tasks.ledger.store import Store
    from tasks.rollout.shares import follow_stack
    from tasks.rollout.takeover import introduce
    from tasks.serve import stack

    here = settings()
    with console.status("starting ..."):
        stack.up(here, lambda service: console.print(f"  ready  {service.name:<34} {service.address}"))
        with closing(Store(here)) as store:
            follow_stack(store, here)  # a release may have got another port
            for release in _releases(here):
                introduce(release, here)
                _serve_champion(store, release.case, here)


def _serve_champion(store: Store, case: str, here: Settings) -> None:
    """Serve the release that has the case's traffic, unless it is; one that can't be served stops no other."""
    from tasks.rollout.history import is_running
    from tasks.rollout.takeover import champion_at_gateway, running
    from tasks.serve.programs import program_name

    digest = champion_at_gateway(case, here)
    if digest is None or is_running(store, digest):
        return
    try:
        running(store, case, digest, here)
        console.print(f"  ready  {program_name(case, digest)}")
    except DriftlineError as error:
        console.print(f"  the champion of {case} is not served: {error.what}", markup=False)
        console.print(f"  look at its log, or make another one: driftline run {case}", markup=False)


def restart() -> None:
    """Start everything anew, one after the other; what is not up is started."""
    from tasks.gateway.renew import renew
    from tasks.serve import stack

    here = settings()
    if stack.runs(here):
        with console.status("restarting ..."):
            renew(here, lambda name: console.print(f"  anew   {name}"))
    else:
        start()


def stop() -> None:
    """Stop what was started here."""
    from tasks.serve import stack

    console.print("stopped" if stack.down(settings()) else "nothing ran")


def addresses() -> list[tuple[str, str]]:
    """What is ready now, and where."""
    from tasks.serve import stack

    ready = [service for service in stack.state(settings()) if service.state == "ready"]
    return [(service.name, service.address) for service in ready if service.address]


def _releases(here: Settings) -> list[Release]:
    """The champion of each case that has one."""
    from tasks.release.registry import champion

    if here.mlflow_uri.startswith("sqlite") and not (here.state / "mlflow.db").exists():
        return []
    found = (champion(here.tracking, here.state, case) for case in names(here.cases))
    return [release for release in found if release]
