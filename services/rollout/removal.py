"""Ends the serving of a case for good; its usage records, feedback, approvals and audit events stay."""

from __future__ import annotations

from sqlalchemy import delete, select

from services.rollout.shares import champion_of, sync_endpoints
from services.runtime import stack
from services.store.audit import record_audit_event
from services.store.database import Store, plans, releases, rollout_events, shares
from tasks.core.settings import Settings


def stop_serving(store: Store, case: str, settings: Settings) -> list[str]:
    """End the case's traffic, with an audit event, then its processes; returns the names of those that ran.

    A gateway that was routing to it answers 404 within a second. Calling it again does what is left.
    """
    with store.changing() as connection:
        champion = champion_of(connection, case) or ""
        record_audit_event(connection, "case.remove", champion, case=case)
        for table in (shares, plans, rollout_events, releases):
            connection.execute(delete(table).where(table.c.case == case))
    stopped = stack.retire_releases(settings, case, ())
    sync_endpoints(store, settings)
    return stopped


def known_cases(store: Store) -> set[str]:
    """The cases that have a share of traffic, or had a release."""
    with store.reading() as connection:
        queries = (select(table.c.case).distinct() for table in (shares, releases))
        return {case for query in queries for case in connection.execute(query).scalars()}
