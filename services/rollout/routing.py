"""Routing: the rollout of each case, and the assignment of users to its shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import RowMapping

from services.store.api_error import ApiError
from tasks.release.config import Price

CHAMPION, CANARY, ARM, SHADOW = "champion", "canary", "arm", "shadow"
TABULAR, LANGUAGE = "tabular", "llm"  # kinds of cases
BUCKETS = 10_000  # so that a share counts in hundredths of a per cent


@dataclass(frozen=True)
class Route:
    """A release, and the processes that answer as it."""

    digest: str
    case: str
    kind: str
    addresses: tuple[str, ...]
    price: Price = field(default_factory=Price)
    entities: tuple[str, ...] = ()  # join keys of a table's rows
    context: int = 0  # of a language model: the most tokens of prompt and answer
    answer_tokens: int = 0  # as long as an answer may get when the request does not say

    @property
    def tag(self) -> str:
        return f"{self.case}:{self.digest[:12]}"


@dataclass(frozen=True)
class Share:
    """What a release gets of a case's traffic."""

    route: Route
    role: str
    percent: float = 100.0
    arm: str = ""


@dataclass(frozen=True)
class Rollout:
    """All releases of a case that get traffic."""

    case: str
    champion: Share
    others: tuple[Share, ...] = ()  # canaries and arms, in the order of their buckets
    shadows: tuple[Share, ...] = ()

    def assign(self, entity: str) -> Share:
        """The same share for the same entity, as long as shares only grow."""
        if not self.others:
            return self.champion
        digest = hashlib.sha256(f"{self.case}\0{entity}".encode()).digest()
        bucket = int.from_bytes(digest[:8]) % BUCKETS
        for share in self.others:
            bucket -= round(share.percent * BUCKETS / 100)
            if bucket < 0:
                return share
        return self.champion


@dataclass(frozen=True)
class Routes:
    """All routes, as of one version of the configuration."""

    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    by_digest: Mapping[str, Route] = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # rows that were left out, each with the reason

    def rollout(self, case: str, kind: str) -> Rollout:
        """Raises: ApiError when no release of that case and kind is there."""
        found = self.rollouts.get(case)
        if found is None or found.champion.route.kind != kind:
            there = ", ".join(sorted(self.cases(kind))) or "none"
            raise ApiError(
                404, f"There is no model {case!r}; there are: {there}.", code="model_not_found", param="model"
            )
        return found

    def named(self, model: str, kind: str) -> Rollout:
        """The rollout of a case, or, for CASE:DIGEST or a digest, that release alone.

        Raises: ApiError when there is none.
        """
        case, _, digest = model.rpartition(":")
        if model not in self.rollouts and len(digest) >= 12:
            for route in self.by_digest.values():
                named = route.digest.startswith(digest) and case in ("", route.case)
                if named and route.addresses and route.kind == kind:
                    return Rollout(route.case, Share(route, CHAMPION))
        return self.rollout(model, kind)

    def cases(self, kind: str) -> list[str]:
        return [case for case, rollout in self.rollouts.items() if rollout.champion.route.kind == kind]


def routes_of(releases: Sequence[RowMapping], endpoints: Sequence[RowMapping], shares: Sequence[RowMapping]) -> Routes:
    """Put the store's rows together; a row that can't be used is left out, with a problem that says so."""
    problems: list[str] = []
    addresses: dict[str, list[str]] = {}
    for row in endpoints:
        addresses.setdefault(row["digest"], []).append(row["address"])
    routes: dict[str, Route] = {}
    for row in releases:
        with _reporting(problems, f"release {row['digest']:.12} of {row['case']}"):
            routes[row["digest"]] = _route(row, tuple(sorted(addresses.get(row["digest"], ()))))
    by_case: dict[str, list[Share]] = {}
    for row in shares:
        with _reporting(problems, f"the share of release {row['digest']:.12} of {row['case']}"):
            by_case.setdefault(row["case"], []).append(_share(row, routes))
    rollouts: dict[str, Rollout] = {}
    for case, its_shares in by_case.items():
        with _reporting(problems, f"the rollout of {case}"):
            rollouts[case] = _rollout(case, its_shares)
    return Routes(rollouts, routes, tuple(problems))


@contextmanager
def _reporting(problems: list[str], what: str) -> Iterator[None]:
    """Note what is wrong with one row, whatever it is: the others go on to be served."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (rows come from older versions, and from hands)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        problems.append(f"{what} can't be used: {reason}")


def _route(row: RowMapping, addresses: tuple[str, ...]) -> Route:
    facts = row["metadata"]
    if facts["kind"] not in (TABULAR, LANGUAGE):
        raise ValueError(f"kind is {TABULAR} or {LANGUAGE}, not {facts['kind']!r}")
    return Route(
        digest=row["digest"],
        case=row["case"],
        addresses=addresses,
        price=Price.model_validate(facts.get("price", {})),
        kind=facts["kind"],
        entities=tuple(facts.get("entities", ())),
        context=int(facts.get("context", 0)),
        answer_tokens=int(facts.get("answer_tokens", 0)),
    )


def _share(row: RowMapping, routes: Mapping[str, Route]) -> Share:
    if not 0 <= row["percent"] <= 100:
        raise ValueError(f"percent is 0 to 100, not {row['percent']!r}")
    if row["digest"] not in routes:
        raise ValueError("its release is unknown")
    return Share(routes[row["digest"]], row["role"], row["percent"], row["arm"])


def _rollout(case: str, shares: Sequence[Share]) -> Rollout:
    champion = next((share for share in shares if share.role == CHAMPION), None)
    if champion is None:
        raise ValueError("it has no champion")
    # canaries first: an arm beside them must not move their users when they grow
    ordered = sorted(
        (s for s in shares if s.role in (CANARY, ARM)), key=lambda s: (s.role != CANARY, s.arm, s.route.digest)
    )
    return Rollout(case, champion, tuple(ordered), tuple(s for s in shares if s.role == SHADOW))
