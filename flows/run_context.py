"""How every flow begins: its request checked, its case read, the case held against a second run, its steps told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar, cast

from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import AwareDatetime, Field

from flows.case import LanguageCase, TabularCase, load_case
from tasks.core.config import Section
from tasks.core.errors import InputError, NotReady
from tasks.core.files import disk_full_as_unavailable, lock
from tasks.core.git_push import COMMIT_PATTERN
from tasks.core.lineage import read_lineage
from tasks.core.settings import ROOT, Settings, settings
from tasks.train.results import Origin

R = TypeVar("R")
_locked_case: ContextVar[str] = ContextVar("held", default="")


class Request(Section):
    """What every flow is asked."""

    case: str = Field(description="Name of a folder under configs/.")
    as_of: AwareDatetime | None = Field(
        None, description="The moment the run pretends to be at; empty: the case's own, or now."
    )
    profile: str | None = Field(None, description="A profile of the case, such as smoke.")
    by: str = Field("", description="Who or what asks for the run: a name, a push, a decision.")
    commit: str = Field(
        "",
        pattern=f"{COMMIT_PATTERN}|^$",
        description="Of a deployed run: the commit whose code and cases it works with; empty: the code as it is.",
    )
    model: Path | None = Field(None, description="A model made elsewhere, in place of training; empty: one is trained.")


@dataclass(frozen=True)
class RunContext:
    """A request made concrete."""

    case: TabularCase | LanguageCase
    as_of: datetime
    model: Path | None  # made elsewhere, in place of training
    by: str  # who or what asked for the run
    is_replay: bool  # as_of is a moment of the past, not now
    lineage: dict[str, str]
    settings: Settings

    @property
    def origin(self) -> Origin:
        """What a candidate that this run makes comes from."""
        here = self.settings
        return Origin(
            case=self.case.name, as_of=self.as_of, lineage=self.lineage, state=here.state, tracking=here.tracking
        )


@contextlib.contextmanager
def run_context(request: Request, world: Settings | None = None) -> Iterator[RunContext]:
    """Read and hold the case for one run, in the world that the settings say unless another is given.

    Raises: CaseError, InputError for a future as-of, Busy when another run holds the case,
    Unavailable when the disk is full.
    """
    here = world or settings()
    case = load_case(request.case, here.cases, request.profile)
    asked = request.as_of or case.as_of
    as_of, replays = resolve_as_of(asked or _as_of_of_approval(case, here)), asked is not None
    made_by = read_lineage(ROOT)
    lineage = {
        "commit": made_by.commit,
        "dirty": str(made_by.dirty).lower(),
        "lock_digest": made_by.lock_digest,
        "case_digest": case.digest,
    }
    if _locked_case.get() == case.name:  # a flow within a flow
        yield RunContext(case, as_of, request.model, request.by, replays, lineage, here)
        return
    patient = deployment.id is not None  # nobody sits before a deployed run
    held = lock(here.state / "locks" / case.name, f"Case {case.name}", wait=patient)
    with disk_full_as_unavailable(here.state), held:
        token = _locked_case.set(case.name)
        try:
            yield RunContext(case, as_of, request.model, request.by, replays, lineage, here)
        finally:
            _locked_case.reset(token)


def _as_of_of_approval(case: TabularCase | LanguageCase, here: Settings) -> datetime | None:
    """The as-of of a run that has waited for a person's word: what it goes on with is what that person saw."""
    if case.approval is None or deployment.id is None:
        return None
    from services.store.approvals import find_by_run
    from services.store.database import Store

    with closing(Store(here)) as store:
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
    """Do the steps; a deployed run that finds nothing to do yet has done its duty, and ends well.

    Raises: NothingYet at a terminal, where somebody would wonder.
    """
    try:
        return steps()
    except NotReady as nothing:
        if deployment.id is None:
            raise
        return cast(R, Completed(message=str(nothing)))  # a flow that gives a state ends in it


def run_name() -> str:
    """What the Prefect UI calls a run: flow, case, as-of."""
    request = flow_run.parameters.get("request")
    request = request if isinstance(request, Request) else Request.model_validate(request)
    when = f" as of {request.as_of:%Y-%m-%d %H:%M}" if request.as_of else ""
    return f"{flow_run.flow_name} {request.case}{when}"
