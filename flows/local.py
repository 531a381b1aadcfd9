"""`driftline up`, `down` and `status`: the local stack, and the champion of each case."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from flows.case import names
from flows.terminal import console
from tasks.foundation.settings import Settings, settings

if TYPE_CHECKING:
    from tasks.release.results import Release


def start() -> None:
    """Start the servers and serve each case's champion; say each address once it is ready."""
    from tasks.gateway.rollout import follow_stack
    from tasks.gateway.store import Store
    from tasks.gateway.takeover import introduce
    from tasks.serve import stack

    here = settings()
    with console.status("starting ..."):
        stack.up(here, lambda service: console.print(f"  ready  {service.name:<34} {service.address}"))
    follow_stack(Store(here), here)  # a release may have got another port
    for release in _releases(here):
        introduce(release, here)
        if not stack.address_of(here, release):
            console.print(f"  the champion of {release.case} is not served: driftline run {release.case}")


def stop() -> None:
    """Stop what was started here."""
    from tasks.serve import stack

    console.print("stopped" if stack.down(settings()) else "nothing ran")


def tell(as_json: bool) -> None:
    """Print services and champions."""
    here = settings()
    told = {"services": _services(here), "champions": _champions(here)}
    if as_json:
        print(json.dumps(told, indent=2))
        return
    table = Table("service", "state", "address", "log", box=None, pad_edge=False, header_style="dim")
    for service in told["services"]:
        table.add_row(service["name"], service["state"], service["address"], service["log"])
    console.print(table if told["services"] else "Nothing runs. Start it: driftline up")
    table = Table("case", "champion", "as of", "verdict", "address", box=None, pad_edge=False, header_style="dim")
    for champion in told["champions"]:
        table.add_row(
            champion["case"],
            champion["release"][:12],
            champion["as_of"],
            champion["verdict"],
            champion["address"] or "not served",
        )
    console.print(table if told["champions"] else "No case has a champion yet. Make one: driftline run CASE")


def addresses() -> list[tuple[str, str]]:
    """What is ready now, and where."""
    return [(service["name"], service["address"]) for service in _services(settings()) if service["state"] == "ready"]


def _services(here: Settings) -> list[dict[str, Any]]:
    from tasks.serve import stack

    return [service.model_dump(mode="json") for service in stack.state(here)]


def _champions(here: Settings) -> list[dict[str, Any]]:
    from tasks.release.seal import read_manifest
    from tasks.serve import stack

    return [
        {
            "case": release.case,
            "release": release.digest,
            "as_of": release.as_of.isoformat(),
            "address": stack.address_of(here, release) or "",
            "verdict": read_manifest(release.folder)["sealed"]["verdict"]["decision"],
        }
        for release in _releases(here)
    ]


def _releases(here: Settings) -> list[Release]:
    """The champion of each case that has one."""
    from tasks.release.registry import champion

    if here.mlflow_uri.startswith("sqlite") and not (here.state / "mlflow.db").exists():
        return []
    found = (champion(here.tracking, here.state, case) for case in names(here.cases))
    return [release for release in found if release]
