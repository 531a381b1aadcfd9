"""What a git push starts."""

from __future__ import annotations

from prefect import flow
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from flows.deployed.checkout import cases_folder, changed_files, checkout_commit, fetch, is_published
from flows.deployed.path_filters import flows_to_start, read_cases
from tasks.core.config import Result
from tasks.core.errors import InputError
from tasks.core.git_push import GitPush
from tasks.core.prefect import show_table
from tasks.core.settings import ROOT, settings
from tasks.data.snapshots import fetch_data


class PushResult(Result):
    """The runs that a push started, as FLOW/CASE; none: it asked for none, or was overtaken by a later push."""

    commit: str | None
    started: tuple[str, ...]


def run_name() -> str:
    """What the Prefect UI calls it: what was pushed, and by whom."""
    pushed = flow_run.parameters.get("request")
    pushed = pushed if isinstance(pushed, GitPush) else GitPush.model_validate(pushed)
    return f"push {pushed.ref} {pushed.new[:12]}" + (f" by {pushed.pusher}" if pushed.pusher else "")


@flow(name="push", flow_run_name=run_name, retries=3, retry_delay_seconds=30)
def push(request: GitPush) -> PushResult:
    """Start the flows of the cases whose files changed, each to run the code and configuration of that commit."""
    here = settings()
    commit = fetch(ROOT, here.state, request.new) if request.triggers(here.git_branch) else None
    if commit is None or not is_published(commit, ROOT, here.git_branch):
        return PushResult(commit=None, started=())
    tree = checkout_commit(commit, ROOT, here.state)
    changed = [] if request.tag else changed_files(ROOT, request.old, commit)
    cases = read_cases(cases_folder(tree, here), tree)
    asked = flows_to_start(request.tag, changed, cases)
    fetch_data([source for _, case in asked for source in cases[case].sources], tree, ROOT)
    missing = [f"{name}/{case}" for name, case in asked if not start_run(name, case, request, commit)]
    show_table("push", [{"flow": name, "case": case} for name, case in asked], f"Started at {commit[:12]}")
    if missing:
        raise InputError(
            f"{len(missing)} of {len(asked)} runs could not be started: there is no such deployment.",
            where="Prefect",
            found=", ".join(missing),
            todo="git pull, driftline deploy, and run this push again: what was started is not started twice.",
        )
    return PushResult(commit=commit, started=tuple(f"{name}/{case}" for name, case in asked))


def start_run(name: str, case: str, pushed: GitPush, commit: str) -> bool:
    """Create a deployment's run, unless that push did already; False when there is no such deployment."""
    try:
        run_deployment(
            f"{name}/{case}",
            parameters={"request": {"case": case, "by": pushed.pusher or f"push {commit[:12]}", "commit": commit}},
            timeout=0,
            idempotency_key=f"push {pushed.id} {name}/{case}",
            tags=[case, "push", commit[:12]],
            as_subflow=False,  # it goes on by itself, whatever becomes of this run
        )
    except ObjectNotFound:
        return False
    return True
