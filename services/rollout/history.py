"""Queries about rollouts: shares, events, earlier champions, running releases."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, func, select

from services.store.database import Store, endpoints, releases, rollout_events, shares


def champion_history(connection: Connection, case: str) -> list[str]:
    """All champions of a case, newest first, each once."""
    found = connection.execute(
        select(rollout_events.c.champion).where(rollout_events.c.case == case).order_by(rollout_events.c.id.desc())
    ).scalars()
    return list(dict.fromkeys(found))


def releases_to_keep_warm(store: Store, case: str, earlier: int) -> list[str]:
    """The releases of a case that must keep running: all with a share, and this many earlier champions."""
    with store.reading() as connection:
        sharing = connection.execute(select(shares.c.digest).where(shares.c.case == case)).scalars().all()
        return list(dict.fromkeys([*sharing, *champion_history(connection, case)[: earlier + 1]]))


def active_shares(store: Store) -> Sequence[RowMapping]:
    """All shares of all cases, the champion's first, each with the time of the case's latest event."""
    last = (
        select(rollout_events.c.case, func.max(rollout_events.c.at).label("since"))
        .group_by(rollout_events.c.case)
        .subquery()
    )
    query = select(shares, last.c.since).join(last, last.c.case == shares.c.case, isouter=True)
    with store.reading() as connection:
        return (
            connection.execute(query.order_by(shares.c.case, shares.c.role != "champion", shares.c.role))
            .mappings()
            .all()
        )


def rollout_history(store: Store, case: str) -> tuple[Sequence[RowMapping], Sequence[RowMapping]]:
    """The shares of a case, and its latest events, newest first."""
    with store.reading() as connection:
        held = connection.execute(select(shares).where(shares.c.case == case)).mappings().all()
        newest = (
            select(rollout_events).where(rollout_events.c.case == case).order_by(rollout_events.c.id.desc()).limit(10)
        )
        return held, connection.execute(newest).mappings().all()


def find_release(store: Store, case: str, reference: str) -> str | None:
    """The full digest of a prefix among the releases of a case; None for no match or several."""
    with store.reading() as connection:
        found = connection.execute(select(releases.c.digest).where(releases.c.case == case)).scalars().all()
    matches = [digest for digest in found if len(reference) >= 4 and digest.startswith(reference)]
    return matches[0] if len(matches) == 1 else None


def is_running(store: Store, digest: str) -> bool:
    """Whether a process serves this release."""
    with store.reading() as connection:
        return connection.execute(select(endpoints.c.address).where(endpoints.c.digest == digest)).first() is not None
