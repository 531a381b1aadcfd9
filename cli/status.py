"""`driftline status`: services, traffic, verdicts, decisions, runs, approvals and costs."""

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
APPROVAL_PENDING = (
    f"{WaitsForApproval.__name__}:"  # in the message of a terminal run that ended to wait for an approval
)
NUMBERS = ("share", "calls today", "failed", "spent")  # columns


def print_status(as_json: bool) -> None:
    """Print the report; a part that does not answer is named, and the rest is shown."""
    report = gather(settings())
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)


def gather(config: Settings) -> dict[str, Any]:
    """The content of `status --json`; `unknown` names each part that did not answer, with the reason."""
    unknown: dict[str, str] = {}

    def query(part: str, call: Callable[[], Any], default: Any) -> Any:
        try:
            return call()
        except DriftlineError as error:
            unknown[part] = f"{error.what} {error.found}".strip()
            return default

    configured = case_names(config.cases)
    services = [service.model_dump(mode="json") for service in stack.list_services(config)]
    addresses = {service["name"]: service["address"] for service in services if service["state"] == "ready"}
    shares, today, waiting = query("gateway", lambda: _gateway(config), ({}, {}, []))
    return {
        "services": services,
        "cases": [
            {
                "case": case,
                "has_folder": case in configured,
                **_champion(config, case, shares.get(case, []), addresses),
                "verdict": _verdict(config, case),
                "decision": _decision(config, case),
                "today": today.get(case, {"calls": 0, "failed": 0, "spent": 0.0}),
            }
            for case in sorted({*configured, *shares, *today})
        ],
        "open_decisions": waiting,
        "login": _login(config),
        "runs": query("runs", lambda: _runs(config), None),
        "disk": _disk(config),
        "unknown": unknown,
    }


def _gateway(config: Settings) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any], list[dict[str, Any]]]:
    """The traffic shares by case, today's costs, and the approvals that are pending.

    Raises: Unavailable when the database does not answer.
    """
    if not config.gateway_store and not (config.state / "gateway" / "gateway.db").exists():
        return {}, {}, []
    from services.rollout.history import active_shares
    from services.store.approvals import list_approvals
    from services.store.costs import usage_today
    from services.store.database import Store, database_errors

    shares: dict[str, list[dict[str, Any]]] = {}
    with closing(Store(config)) as store, database_errors("the gateway's database"):
        for row in active_shares(store):
            shares.setdefault(row["case"], []).append(dict(row))
        waiting = [each.model_dump(mode="json") for each in list_approvals(store) if each.state == "waiting"]
        return shares, usage_today(store), waiting


def _champion(config: Settings, case: str, shares: list[dict[str, Any]], addresses: dict[str, str]) -> dict[str, Any]:
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
    sealed = _read(config.state / "releases" / case / champion[:12] / "manifest.json").get("sealed", {})
    since = _when(shares[0]["since"]) if shares and shares[0]["since"] else None
    return {"champion": champion, "as_of": sealed.get("as_of"), "since": since, "shares": held}


def _verdict(config: Settings, case: str) -> dict[str, Any] | None:
    path = _newest((config.state / "verdicts" / case).glob("*/verdict.json"))
    return {"decision": _read(path).get("decision"), "at": _when(path.stat().st_mtime)} if path else None


def _decision(config: Settings, case: str) -> dict[str, Any] | None:
    path = _newest((config.state / "monitor" / case).glob("*/*/decision.json"))
    content = _read(path) if path else {}
    if not path or not content:
        return None
    why = next(iter(content.get("reasons", ())), "")
    return {
        "action": content.get("action"),
        "as_of": content.get("as_of"),
        "why": why,
        "at": _when(path.stat().st_mtime),
    }


def _runs(config: Settings) -> dict[str, list[dict[str, Any]]]:
    """Running, late and recently failed runs, newest first and at most 20 of each.

    Raises: Unavailable when Prefect's server does not answer, or refuses.
    """
    import httpx

    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    wanted: dict[str, dict[str, Any]] = {
        "running": {"state": {"type": {"any_": LIVE}}},
        "broken": {"state": {"type": {"any_": BROKEN}}, "end_time": {"after_": since}},
        "late": {"state": {"name": {"any_": ["Late"]}}},
    }
    runs_by_state: dict[str, list[dict[str, Any]]] = {}
    try:
        with httpx.Client(base_url=config.prefect_api, headers=config.prefect_headers, timeout=1.5) as server:
            for part, runs in wanted.items():
                answer = server.post(
                    "/flow_runs/filter", json={"flow_runs": runs, "limit": 20, "sort": "EXPECTED_START_TIME_DESC"}
                )
                if answer.status_code == 401:
                    raise Unavailable("Prefect's server demands another auth string.", where=config.prefect_api)
                runs_by_state[part] = [
                    {
                        "run": run["name"],
                        "state": run["state_name"],
                        "at": run["end_time"] or run["start_time"] or run["expected_start_time"],
                        "why": (run["state"] or {}).get("message") or "",
                    }
                    for run in answer.raise_for_status().json()
                ]
    except httpx.HTTPError as error:
        raise Unavailable("Prefect's server does not answer.", where=config.prefect_api) from error
    runs_by_state["waiting"] = [run for run in runs_by_state["broken"] if APPROVAL_PENDING in run["why"]]
    runs_by_state["broken"] = [run for run in runs_by_state["broken"] if run not in runs_by_state["waiting"]]
    return runs_by_state


def _login(config: Settings) -> str:
    """The command that prints the login of the local servers; empty before the first `up`."""
    if not config.login:
        return ""
    if config.login.partition(":")[2] != read_secret(config.state, LOGIN_SECRET):
        return f"see {AUTH_STRINGS[0]} in .env or your environment"
    return f'echo "{LOGIN_USER}:$(cat {shlex.quote(str(secret_file(config.state, LOGIN_SECRET)))})"'


def _disk(config: Settings) -> dict[str, Any]:
    state, data = disk_usage(config.state), disk_usage(config.data)
    near = next(path for path in (config.state, *config.state.parents) if path.is_dir())
    total = {"state": sum(state.values()), "data": sum(data.values()), "free": shutil.disk_usage(near).free}
    return {**total, "largest": dict(list(state.items())[:4])}


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty when it can't be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _show(report: dict[str, Any]) -> None:
    """Print one screen; long texts are cut at its edge, --json has them whole."""
    services, cases, runs, disk = report["services"], report["cases"], report["runs"], report["disk"]
    if services:
        table = _table("service", "state", "address", "up")
        for each in services:
            table.add_row(each["name"], _mark(each["state"]), each["address"], _span(each["uptime_s"]))
        console.print(table)
        for each in services:
            if each["state"] in ("failed", "starting"):
                console.print(f"{each['name']} is {each['state']}: see {each['log']}")
        console.print(f"login for the Prefect and MLflow pages: {report['login']}")
    else:
        console.print("The stack is down. Start it: driftline up")
    console.print()
    table = _table("case", "champion", "share", "others", "calls today", "failed", "spent")
    for each in cases:
        lead, *beside = each["shares"] or [{"percent": 0}]
        shares = ", ".join(f"{s['role']} {s['release'][:8]} {s['percent']:g} %" for s in beside)
        calls, failed, spent = each["today"].values()
        share = f"{lead['percent']:g} %" if each["champion"] else ""
        champion = each["champion"][:12] or "none yet"
        table.add_row(each["case"], champion, share, shares, f"{calls:,}", f"{failed:,}", f"{spent:.4g}")
    console.print(table if cases else "There are no cases. Create one: driftline new CASE FILE")
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
    for each in cases:
        if each["shares"] and not each["has_folder"]:
            console.print(f"{each['case']} has no folder any more, but its champion has traffic. To end it:")
            console.print(f"  driftline remove {each['case']}")
    for each in report["open_decisions"]:
        by = f", requested by {each['asked_by']}" if each["asked_by"] else ""
        until = f"until {each['expires_at'][:16].replace('T', ' ')} UTC"
        instruction = f" driftline approve {each['case']}, or reject, {until}{one_line(by)}"
        console.print(Text.assemble(styled("approval pending:", "yellow"), instruction))
    console.print()
    if runs is not None:
        counts = ", ".join(f"{len(runs[part])} {part}" for part in ("running", "late", "waiting"))
        console.print(f"runs: {counts}, {len(runs['broken'])} failed or crashed in the last day")
        table = _table("state", "run", "when", "why", cut="why")
        for part in ("running", "late", "broken"):  # pending approvals are listed above
            for run in runs[part][:4]:
                table.add_row(
                    Text.assemble("  ", _mark(run["state"])), run["run"], _ago(run["at"]), run["why"].split("\n")[0]
                )
        if table.row_count:
            table.show_header = False
            console.print(table)
    for part, why in report["unknown"].items():
        console.print(f"{part}: unknown. {why}")
    largest = ", ".join(f"{name} {_size(size)}" for name, size in disk["largest"].items())
    console.print(
        f"disk: state {_size(disk['state'])} ({largest}), data {_size(disk['data'])}, {_size(disk['free'])} free"
    )


def _table(*columns: str, cut: str = "") -> PlainTable:
    """A table whose column `cut` takes the remaining width."""
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
