"""What every flow begins with: it checks the request, reads the case, and locks it against a second run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import AwareDatetime, Field

from flows.case import LanguageCase, TabularCase, load_case
from services.store.decisions import RunFacts, record_run
from tasks.core.actor import Actor, acting, person
from tasks.core.config import Section, digest_of
from tasks.core.errors import InputError, NoDataYet
from tasks.core.files import disk_full_as_unavailable, lock
from tasks.core.git_push import COMMIT_PATTERN
from tasks.core.lineage import read_lineage
from tasks.core.processes import current_user
from tasks.core.settings import ROOT, Settings, settings
from tasks.data.results import BaseModelFiles
from tasks.data.task import open_model
from tasks.govern.openlineage import RunLineage, emitting
from tasks.train.results import Origin

R = TypeVar("R")
_locked_case: ContextVar[str] = ContextVar("held", default="")


class Request(Section):
    """The parameters of every flow."""

    case: str = Field(description="Name of a folder under configs/.")
    as_of: AwareDatetime | None = Field(
        None, description="The moment the run pretends to be at; empty: the case's own, or now."
    )
    profile: str | None = Field(None, description="A profile of the case, such as smoke.")
    by: str = Field("", description="Who or what started the run: a name, a push, a decision.")
    commit: str = Field(
        "",
        pattern=f"{COMMIT_PATTERN}|^$",
        description="Of a deployed run: the commit whose code and cases it uses; empty: the code as it is.",
    )
    model: Path | None = Field(None, description="An external model to import in place of training; empty: train one.")


@dataclass(frozen=True)
class RunContext:
    """A checked request, with all that it refers to."""

    case: TabularCase | LanguageCase
    as_of: datetime
    model: Path | None  # an external model to import in place of training
    by: str  # who or what started the run
    is_replay: bool  # as_of is a moment of the past, not now
    lineage: dict[str, str]
    settings: Settings

    @property
    def origin(self) -> Origin:
        """The origin of a candidate that this run creates."""
        return Origin(
            case=self.case.name,
            as_of=self.as_of,
            lineage=self.lineage,
            state=self.settings.state,
            tracking=self.settings.tracking,
        )

    @cached_property
    def base(self) -> BaseModelFiles:
        """The base model of a language case, read once in a run; or what its server says now."""
        assert isinstance(self.case, LanguageCase)
        return open_model(self.case.model, self.case.folder, self.settings.state)


@contextlib.contextmanager
def run_context(request: Request, config: Settings | None = None) -> Iterator[RunContext]:
    """Read and lock the case for one run, with the platform's settings unless others are passed.

    Raises: CaseError, InputError for a future as-of, Busy when another run holds the case,
    Unavailable when the disk is full.
    """
    config = config or settings()
    case = load_case(request.case, config.cases, request.profile)
    requested = request.as_of or case.as_of
    as_of = resolve_as_of(requested or _as_of_of_approval(case, config))
    code = read_lineage(ROOT)
    lineage = {
        "commit": code.commit,
        "dirty": str(code.dirty).lower(),
        "lock_digest": code.lock_digest,
        "case_digest": case.digest,
    }
    run = RunContext(case, as_of, request.model, request.by, requested is not None, lineage, config)
    if _locked_case.get() == case.name:  # a flow within a flow
        yield run
        return
    is_deployed = deployment.id is not None  # a run at a terminal fails at once instead of waiting
    case_lock = lock(config.state / "locks" / case.name, f"Case {case.name}", wait=is_deployed)
    with disk_full_as_unavailable(config.state), case_lock:
        token = _locked_case.set(case.name)
        try:
            with acting(actor_of(request.by)):
                record_run(_facts(run, request.profile), config)
                with emitting(_events(run)):
                    yield run
        finally:
            _locked_case.reset(token)


def _events(run: RunContext) -> RunLineage:
    return RunLineage(
        flow=flow_run.flow_name or "run",
        case=run.case.name,
        commit=run.lineage["commit"],
        state=run.settings.state,
        url=run.settings.openlineage_url,
        run=flow_run.id or "",
    )


def actor_of(by: str) -> Actor:
    """Who or what started this run: the schedule, an event such as a push or a decision, or a person."""
    if deployment.id is not None:
        tags = flow_run.tags or []
        if "auto-scheduled" in tags:
            return Actor("schedule", by or "schedule")
        if "push" in tags or by.startswith("decision "):
            return Actor("event", by)
    return person(by or current_user())  # only this installation's owner can start a run without a name


def _facts(run: RunContext, profile: str | None) -> RunFacts:
    sections = {name: digest_of(value)[:12] for name, value in run.case.model_dump(mode="json").items()}
    return RunFacts(
        case=run.case.name,
        flow=flow_run.flow_name or "",
        profile=profile or "",
        as_of=run.as_of.isoformat(),
        run=flow_run.id or "",
        lineage=run.lineage,
        sections=sections,
    )


def _as_of_of_approval(case: TabularCase | LanguageCase, config: Settings) -> datetime | None:
    """The as-of of the approval that this run waited for: it continues with the evidence that the approver saw."""
    if case.approval is None or deployment.id is None:
        return None
    from services.store.approvals import find_by_run
    from services.store.database import Store

    with closing(Store(config)) as store:
        approval = find_by_run(store, flow_run.id)
    return approval.as_of if approval else None


def resolve_as_of(as_of: datetime | None) -> datetime:
    """An as-of in UTC; now when there is none.

    Raises: InputError when it lies in the future.
    """
    now = datetime.now(UTC)
    if as_of is None:
        return now
    if as_of > now:
        raise InputError(
            "The as-of lies in the future.",
            where="--as-of",
            found=as_of.isoformat(),
            allowed=f"up to now, {now:%Y-%m-%d %H:%M} UTC",
        )
    return as_of.astimezone(UTC)


def complete_if_nothing_to_do(steps: Callable[[], R]) -> R:
    """Run the steps; a deployed run that has nothing to do yet completes.

    Raises: NoDataYet at a terminal.
    """
    try:
        return steps()
    except NoDataYet as nothing:
        if deployment.id is None:
            raise
        return cast(R, Completed(message=str(nothing)))  # a flow that returns a state ends in it


def run_name() -> str:
    """The name of a run in the Prefect UI: flow, case, as-of."""
    request = flow_run.parameters.get("request")
    request = request if isinstance(request, Request) else Request.model_validate(request)
    when = f" as of {request.as_of:%Y-%m-%d %H:%M}" if request.as_of else ""
    return f"{flow_run.flow_name} {request.case}{when}"
