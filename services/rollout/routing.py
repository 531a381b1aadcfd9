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
BUCKETS = 10_000  # a share is a multiple of 0.01 %


@dataclass(frozen=True)
class Route:
    """A release and the addresses of its processes."""

    digest: str
    case: str
    kind: str
    addresses: tuple[str, ...]
    price: Price = field(default_factory=Price)
    entities: tuple[str, ...] = ()  # join keys of tabular rows
    context: int = 0  # of a language model: maximum tokens of prompt and answer
    answer_tokens: int = 0  # maximum tokens of an answer, unless the request sets it
    prompt: str = ""  # name and digest of a language model's prompt
    guard: str = ""  # digest of the release's guardrails; empty: it has none

    @property
    def tag(self) -> str:
        return f"{self.case}:{self.digest[:12]}"


@dataclass(frozen=True)
class Share:
    """The share of a release in a case's traffic."""

    route: Route
    role: str
    percent: float = 100.0
    arm: str = ""


@dataclass(frozen=True)
class Rollout:
    """All releases of a case with a share of its traffic."""

    case: str
    champion: Share
    others: tuple[Share, ...] = ()  # canaries and arms, in the order of their buckets
    shadows: tuple[Share, ...] = ()

    def assign(self, entity: str) -> Share:
        """The share that answers an entity: always the same one, as long as shares only grow."""
        if not self.others:
            return self.champion
        digest = hashlib.sha256(f"{self.case}\0{entity}".encode()).digest()
        bucket = int.from_bytes(digest[:8]) % BUCKETS
        for share in self.others:
            bucket -= round(share.percent * BUCKETS / 100)
            if bucket < 0:
                return share
        return self.champion

    def without(self, share: Share) -> Iterator[Share]:
        """The other shares that answer clients, the champion's first."""
        return (each for each in (self.champion, *self.others) if each.route.digest != share.route.digest)


@dataclass(frozen=True)
class Routes:
    """All routes of one version of the configuration."""

    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    by_digest: Mapping[str, Route] = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # problems of rows that were skipped

    def rollout(self, case: str, kind: str) -> Rollout:
        """Raises: ApiError when there is no release of this case and kind."""
        found = self.rollouts.get(case)
        if found is None or found.champion.route.kind != kind:
            there = ", ".join(sorted(self.cases(kind))) or "none"
            raise ApiError(
                404, f"There is no model {case!r}. Available: {there}.", code="model_not_found", param="model"
            )
        return found

    def named(self, model: str, kind: str) -> Rollout:
        """The rollout of a case; for CASE:DIGEST or a digest, of that release alone.

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
    """Build the routes from the store's rows; an unusable row is skipped and reported as a problem."""
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
    """Report any error of one row as a problem, so that the others are still served."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (rows may come from older versions or from manual changes)
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
        prompt=str(facts.get("prompt", "")),
        guard=str(facts.get("guard", "")),
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
    # canaries first: a growing canary must not move the users of an arm
    ordered = sorted(
        (s for s in shares if s.role in (CANARY, ARM)), key=lambda s: (s.role != CANARY, s.arm, s.route.digest)
    )
    return Rollout(case, champion, tuple(ordered), tuple(s for s in shares if s.role == SHADOW))
