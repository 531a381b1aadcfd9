"""A git push to runs of the cases that it changes."""

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
    """The runs that a push started, as FLOW/CASE; none if it changes no case, or a later push overtook it."""

    commit: str | None
    started: tuple[str, ...]


def run_name() -> str:
    """The name of the run in the Prefect UI: the ref, the commit and who pushed it."""
    pushed = flow_run.parameters.get("request")
    pushed = pushed if isinstance(pushed, GitPush) else GitPush.model_validate(pushed)
    return f"push {pushed.ref} {pushed.new[:12]}" + (f" by {pushed.pusher}" if pushed.pusher else "")


@flow(name="push", flow_run_name=run_name, retries=3, retry_delay_seconds=30)
def push(request: GitPush) -> PushResult:
    """Start the flows of the cases whose files changed, each to run the code and configuration of that commit."""
    config = settings()
    commit = fetch(ROOT, config.state, request.new) if request.triggers(config.git_branch) else None
    if commit is None or not is_published(commit, ROOT, config.git_branch):
        return PushResult(commit=None, started=())
    tree = checkout_commit(commit, ROOT, config.state)
    changed = [] if request.tag else changed_files(ROOT, request.old, commit)
    cases = read_cases(cases_folder(tree, config), tree)
    runs = flows_to_start(request.tag, changed, cases)
    fetch_data([source for _, case in runs for source in cases[case].sources], tree, ROOT)
    missing = [f"{name}/{case}" for name, case in runs if not start_run(name, case, request, commit)]
    show_table("push", [{"flow": name, "case": case} for name, case in runs], f"Started at {commit[:12]}")
    if missing:
        raise InputError(
            f"{len(missing)} of {len(runs)} runs could not be started: there is no such deployment.",
            where="Prefect",
            found=", ".join(missing),
            todo="git pull, driftline deploy, and run this push again: runs that were started are not started twice.",
        )
    return PushResult(commit=commit, started=tuple(f"{name}/{case}" for name, case in runs))


def start_run(name: str, case: str, pushed: GitPush, commit: str) -> bool:
    """Create a deployment's run, once for each push; False when there is no such deployment."""
    try:
        run_deployment(
            f"{name}/{case}",
            parameters={"request": {"case": case, "by": pushed.pusher or f"push {commit[:12]}", "commit": commit}},
            timeout=0,
            idempotency_key=f"push {pushed.id} {name}/{case}",
            tags=[case, "push", commit[:12]],
            as_subflow=False,  # it runs on, however this run ends
        )
    except ObjectNotFound:
        return False
    return True
