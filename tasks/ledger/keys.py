"""API keys: a secret of 256 random bits, shown once, kept as its SHA-256."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from tasks.foundation.errors import InputError
from tasks.ledger.refusal import Refusal
from tasks.ledger.store import Store, keys, now, purses, teams
from tasks.release.config import NANO

ROLES = ("predict", "feedback", "operate", "approve", "admin")
PREFIX = "dl-"


@dataclass(frozen=True)
class Limit:
    """Of a minute; None: none."""

    owner: str  # key:ID or team:TEAM
    rpm: int | None
    tpm: int | None


@dataclass(frozen=True)
class Key:
    """Who asks, and what they may."""

    id: str
    team: str
    roles: frozenset[str]
    limits: tuple[Limit, ...] = ()
    purses: tuple[str, ...] = ()  # owners of the budgets that its calls are paid from

    def require(self, role: str) -> None:
        """Raises: Refusal when this key may not."""
        if not self.roles & {role, "admin"}:
            raise Refusal(403, f"This key may not {role}; it may {', '.join(sorted(self.roles))}.", code="forbidden")


LOCAL = Key("local", "local", frozenset(ROLES))


@dataclass(frozen=True)
class Keyring:
    """All keys that hold now. With none ever made, whoever is on this machine may ask, and nobody else."""

    by_hash: Mapping[str, Key]
    guarded: bool

    def find(self, headers: Mapping[str, str], client: str | None) -> Key:
        """Who sends these headers.

        Raises: Refusal.
        """
        if not self.guarded:
            if not _is_this_machine(client) or {"forwarded", "x-forwarded-for", "origin"} & set(headers):
                raise Refusal(
                    401, "No API key was made yet: only this machine itself may ask. Make one: driftline keys create"
                )
            return LOCAL
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Refusal(401, "An API key is needed: Authorization: Bearer KEY", code="missing_api_key")
        key = self.by_hash.get(digest(secret.strip()))
        if key is None:
            raise Refusal(401, "This API key is unknown, or was revoked.", code="invalid_api_key")
        return key


def digest(secret: str) -> str:
    """A plain hash is enough: there is nothing to guess in 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    store: Store, team: str, roles: Sequence[str], rpm: int | None, tpm: int | None, budget: float | None
) -> tuple[str, str]:
    """Make a key; give its id, and the secret, which can't be seen again.

    Raises: InputError for a role that there is not.
    """
    if wrong := sorted(set(roles) - set(ROLES)):
        raise InputError("There is no such role.", where="--role", found=", ".join(wrong), allowed=", ".join(ROLES))
    id_, secret = secrets.token_hex(4), PREFIX + secrets.token_urlsafe(32)
    row = {"id": id_, "hash": digest(secret), "team": team, "roles": sorted(set(roles)), "rpm": rpm, "tpm": tpm}
    with store.changing() as to:
        to.execute(insert(keys).values(**row, created_at=now()))
        if budget is not None:
            to.execute(insert(purses).values(owner=f"key:{id_}", budget=round(budget * NANO), spent=0, reserved=0))
    return id_, secret


def revoke(store: Store, id_: str) -> None:
    """Raises: InputError when there is no such key."""
    with store.changing() as to:
        done = to.execute(update(keys).where(keys.c.id == id_, keys.c.revoked_at.is_(None)).values(revoked_at=now()))
        if not done.rowcount:
            raise InputError("There is no such key.", found=id_, todo="driftline keys list")


def limit_team(store: Store, team: str, rpm: int | None, tpm: int | None, budget: float | None) -> None:
    """Set what all keys of a team may together."""
    with store.changing() as to:
        if not to.execute(update(teams).where(teams.c.team == team).values(rpm=rpm, tpm=tpm)).rowcount:
            to.execute(insert(teams).values(team=team, rpm=rpm, tpm=tpm))
        if budget is None:
            to.execute(purses.delete().where(purses.c.owner == f"team:{team}"))
        elif not to.execute(
            update(purses).where(purses.c.owner == f"team:{team}").values(budget=round(budget * NANO))
        ).rowcount:
            to.execute(insert(purses).values(owner=f"team:{team}", budget=round(budget * NANO), spent=0, reserved=0))


def listed(store: Store) -> list[dict[str, Any]]:
    """All keys, revoked ones too, with what they may spend and have spent; their secrets are nowhere."""
    with store.reading() as of:
        rows = of.execute(select(keys).order_by(keys.c.created_at)).mappings().all()
        held = {row["owner"]: row for row in of.execute(select(purses)).mappings()}
    told = []
    for row in rows:
        purse = held.get(f"key:{row['id']}")
        money = {name: purse[name] / NANO if purse else None for name in ("budget", "spent", "reserved")}
        told.append({name: value for name, value in row.items() if name != "hash"} | money)
    return told


def read_keyring(store: Store) -> Keyring:
    with store.reading() as of:
        rows = of.execute(select(keys)).mappings().all()
        together = {row["team"]: row for row in of.execute(select(teams)).mappings()}
        owners = set(of.execute(select(purses.c.owner)).scalars())
    found = {}
    for row in rows:
        if row["revoked_at"] is not None:
            continue
        try:
            found[row["hash"]] = _key_of(row, together.get(row["team"]), owners)
        except Exception:  # one unusable key must not keep the others from being revoked
            logging.getLogger("driftline").exception("The key %s can't be read, so it opens nothing.", row["id"])
    return Keyring(found, guarded=bool(rows))


def _key_of(row: RowMapping, team: RowMapping | None, owners: Set[str]) -> Key:
    limits = [Limit(f"key:{row['id']}", row["rpm"], row["tpm"])]
    if team:
        limits.append(Limit(f"team:{row['team']}", team["rpm"], team["tpm"]))
    return Key(
        id=row["id"],
        team=row["team"],
        roles=frozenset(row["roles"]),
        limits=tuple(limit for limit in limits if limit.rpm or limit.tpm),
        purses=tuple(owner for owner in (f"key:{row['id']}", f"team:{row['team']}") if owner in owners),
    )


def _is_this_machine(client: str | None) -> bool:
    try:
        return ipaddress.ip_address(client or "").is_loopback
    except ValueError:
        return False
