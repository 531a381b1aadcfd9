"""`driftline status`: what runs, who answers, what was judged and decided, what waits and what it costs."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from flows.case import case_names
from services.runtime import stack
from services.runtime.process_specs import release_program_name
from tasks.core.console import PlainTable, console, styled
from tasks.core.display import one_line
from tasks.core.errors import DriftlineError, Unavailable, WaitsForApproval
from tasks.core.files import disk_usage
from tasks.core.local_secrets import read_secret, secret_file
from tasks.core.settings import AUTH_STRINGS, LOGIN_SECRET, LOGIN_USER, Settings, settings

LIVE = ("RUNNING", "PENDING", "PAUSED", "CANCELLING")
BROKEN = ("FAILED", "CRASHED")
WAITS = (
    f"{WaitsForApproval.__name__}:"  # in the message of a run in a terminal that asked for a person's word, and ended
)
NUMBERS = ("share", "calls today", "failed", "spent")  # columns


def print_status(as_json: bool) -> None:
    """Print it all; what does not answer is said, and the rest is told."""
    told = gather(settings())
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _show(told)


def gather(here: Settings) -> dict[str, Any]:
    """Everything that `status --json` says; `unknown` names what could not be found out, with the reason."""
    unknown: dict[str, str] = {}

    def asked(part: str, ask: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return ask()
        except DriftlineError as error:
            unknown[part] = f"{error.what} {error.found}".strip()
            return otherwise

    services = [service.model_dump(mode="json") for service in stack.list_services(here)]
    addresses = {service["name"]: service["address"] for service in services if service["state"] == "ready"}
    shares, today, waiting = asked("gateway", lambda: _gateway(here), ({}, {}, []))
    return {
        "services": services,
        "cases": [
            {
                "case": case,
                **_champion(here, case, shares.get(case, []), addresses),
                "verdict": _verdict(here, case),
                "decision": _decision(here, case),
                "today": today.get(case, {"calls": 0, "failed": 0, "spent": 0.0}),
            }
            for case in sorted({*case_names(here.cases), *shares, *today})
        ],
        "open_decisions": waiting,
        "login": _login(here),
        "runs": asked("runs", lambda: _runs(here), None),
        "disk": _disk(here),
        "unknown": unknown,
    }


def _gateway(here: Settings) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any], list[dict[str, Any]]]:
    """The shares by case, what today's calls cost, and the releases that wait for a person.

    Raises: Unavailable when the database does not answer.
    """
    if not here.gateway_store and not (here.state / "gateway" / "gateway.db").exists():
        return {}, {}, []
    from services.rollout.history import active_shares
    from services.store.approvals import list_approvals
    from services.store.costs import usage_today
    from services.store.database import Store, database_errors

    shares: dict[str, list[dict[str, Any]]] = {}
    with closing(Store(here)) as store, database_errors("the gateway's database"):
        for row in active_shares(store):
            shares.setdefault(row["case"], []).append(dict(row))
        waiting = [each.model_dump(mode="json") for each in list_approvals(store) if each.state == "waiting"]
        return shares, usage_today(store), waiting


def _champion(here: Settings, case: str, shares: list[dict[str, Any]], addresses: dict[str, str]) -> dict[str, Any]:
    held = [
        {
            "role": share["role"],
            "release": share["digest"],
            "percent": share["percent"],
            "arm": share["arm"],
            "address": addresses.get(release_program_name(case, share["digest"]), ""),
        }
        for share in shares
    ]
    others = sum(share["percent"] for share in held if share["role"] in ("canary", "arm"))
    for share in held:
        share["percent"] = 100 - others if share["role"] == "champion" else share["percent"]
    champion = next((share["release"] for share in held if share["role"] == "champion"), "")
    sealed = _read(here.state / "releases" / case / champion[:12] / "manifest.json").get("sealed", {})
    since = _when(shares[0]["since"]) if shares and shares[0]["since"] else None
    return {"champion": champion, "as_of": sealed.get("as_of"), "since": since, "shares": held}


def _verdict(here: Settings, case: str) -> dict[str, Any] | None:
    path = _newest((here.state / "verdicts" / case).glob("*/verdict.json"))
    return {"decision": _read(path).get("decision"), "at": _when(path.stat().st_mtime)} if path else None


def _decision(here: Settings, case: str) -> dict[str, Any] | None:
    path = _newest((here.state / "monitor" / case).glob("*/*/decision.json"))
    said = _read(path) if path else {}
    if not path or not said:
        return None
    why = next(iter(said.get("reasons", ())), "")
    return {"action": said.get("action"), "as_of": said.get("as_of"), "why": why, "at": _when(path.stat().st_mtime)}


def _runs(here: Settings) -> dict[str, list[dict[str, Any]]]:
    """What runs, what broke in the last day, and what should have started, newest first and at most 20 of each.

    Raises: Unavailable when Prefect's server does not answer, or refuses.
    """
    import httpx

    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    wanted: dict[str, dict[str, Any]] = {
        "running": {"state": {"type": {"any_": LIVE}}},
        "broken": {"state": {"type": {"any_": BROKEN}}, "end_time": {"after_": since}},
        "late": {"state": {"name": {"any_": ["Late"]}}},
    }
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        with httpx.Client(base_url=here.prefect_api, headers=here.prefect_headers, timeout=1.5) as server:
            for part, runs in wanted.items():
                answer = server.post(
                    "/flow_runs/filter", json={"flow_runs": runs, "limit": 20, "sort": "EXPECTED_START_TIME_DESC"}
                )
                if answer.status_code == 401:
                    raise Unavailable("Prefect's server demands another auth string.", where=here.prefect_api)
                found[part] = [
                    {
                        "run": run["name"],
                        "state": run["state_name"],
                        "at": run["end_time"] or run["start_time"] or run["expected_start_time"],
                        "why": (run["state"] or {}).get("message") or "",
                    }
                    for run in answer.raise_for_status().json()
                ]
    except httpx.HTTPError as error:
        raise Unavailable("Prefect's server does not answer.", where=here.prefect_api) from error
    found["waiting"] = [run for run in found["broken"] if WAITS in run["why"]]
    found["broken"] = [run for run in found["broken"] if run not in found["waiting"]]
    return found


def _login(here: Settings) -> str:
    """What shows the user and password of the local servers; empty before the first `up`."""
    if not here.login:
        return ""
    if here.login.partition(":")[2] != read_secret(here.state, LOGIN_SECRET):
        return f"see {AUTH_STRINGS[0]} in .env or your environment"
    return f'echo "{LOGIN_USER}:$(cat {shlex.quote(str(secret_file(here.state, LOGIN_SECRET)))})"'


def _disk(here: Settings) -> dict[str, Any]:
    state, data = disk_usage(here.state), disk_usage(here.data)
    near = next(path for path in (here.state, *here.state.parents) if path.is_dir())
    total = {"state": sum(state.values()), "data": sum(data.values()), "free": shutil.disk_usage(near).free}
    return {**total, "largest": dict(list(state.items())[:4])}


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)


def _read(path: Path) -> dict[str, Any]:
    """A file of ours; what can't be read says nothing here."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _show(told: dict[str, Any]) -> None:
    """On one screen; what is long is cut at its edge, as --json has it whole."""
    services, cases, runs, disk = told["services"], told["cases"], told["runs"], told["disk"]
    if services:
        table = _table("service", "state", "address", "up")
        for each in services:
            table.add_row(each["name"], _mark(each["state"]), each["address"], _span(each["uptime_s"]))
        console.print(table)
        for each in services:
            if each["state"] in ("failed", "starting"):
                console.print(f"{each['name']} is {each['state']}: see {each['log']}")
        console.print(f"log in to Prefect's and MLflow's pages as: {told['login']}")
    else:
        console.print("Nothing runs. Start it: driftline up")
    console.print()
    table = _table("case", "champion", "share", "beside it", "calls today", "failed", "spent")
    for each in cases:
        lead, *beside = each["shares"] or [{"percent": 0}]
        shares = ", ".join(f"{s['role']} {s['release'][:8]} {s['percent']:g} %" for s in beside)
        calls, failed, spent = each["today"].values()
        share = f"{lead['percent']:g} %" if each["champion"] else ""
        champion = each["champion"][:12] or "none yet"
        table.add_row(each["case"], champion, share, shares, f"{calls:,}", f"{failed:,}", f"{spent:.4g}")
    console.print(table if cases else "There is no case: see docs/your-own-case.md")
    table = _table("case", "last verdict", "", "last decision", "as of", "why", cut="why")
    for each in cases:
        verdict, decision = each["verdict"] or {}, each["decision"] or {}
        if verdict or decision:
            judged = (verdict["decision"], _ago(verdict["at"])) if verdict else ("", "")
            decided = (
                (decision["action"], decision["as_of"][:10], decision["why"]) if decision else ("none yet", "", "")
            )
            table.add_row(each["case"], *judged, *decided)
    if table.row_count:
        console.print()
        console.print(table)
    for each in told["open_decisions"]:
        by = f", asked by {each['asked_by']}" if each["asked_by"] else ""
        until = f"until {each['expires_at'][:16].replace('T', ' ')} UTC"
        told_how = f" driftline approve {each['case']}, or reject, {until}{one_line(by)}"
        console.print(Text.assemble(styled("waits for a person:", "yellow"), told_how))
    console.print()
    if runs is not None:
        counts = ", ".join(f"{len(runs[part])} {part}" for part in ("running", "late", "waiting"))
        console.print(f"runs: {counts}, {len(runs['broken'])} failed or crashed in the last day")
        table = _table("state", "run", "when", "why", cut="why")
        for part in ("running", "late", "broken"):  # who waits stands above
            for run in runs[part][:4]:
                table.add_row(
                    Text.assemble("  ", _mark(run["state"])), run["run"], _ago(run["at"]), run["why"].split("\n")[0]
                )
        if table.row_count:
            table.show_header = False
            console.print(table)
    for part, why in told["unknown"].items():
        console.print(f"{part}: unknown. {why}")
    largest = ", ".join(f"{name} {_size(size)}" for name, size in disk["largest"].items())
    console.print(
        f"disk: state {_size(disk['state'])} ({largest}), data {_size(disk['data'])}, {_size(disk['free'])} free"
    )


def _table(*columns: str, cut: str = "") -> PlainTable:
    """`cut` has the room that the others leave, whatever its length."""
    table = PlainTable(expand=bool(cut))
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in NUMBERS else "left"
        table.add_column(column, no_wrap=True, overflow="ellipsis", justify=justify, ratio=int(column == cut) or None)
    return table


def _mark(state: str) -> Text:
    color = {"ready": "green", "starting": "yellow", "late": "yellow", "failed": "red", "crashed": "red"}.get(
        state.lower()
    )
    return styled(state, color or "")


def _ago(moment: str) -> str:
    return f"{_span((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())} ago"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
