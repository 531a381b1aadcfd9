"""API keys: a secret of 256 random bits, shown once and stored as its SHA-256."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from services.store.api_error import ApiError
from services.store.audit import record_audit_event
from services.store.database import Store, budgets, keys, now, teams
from tasks.core.errors import InputError
from tasks.core.processes import current_user
from tasks.knowledge.labels import Labels, is_label
from tasks.release.config import NANO

ROLES = ("predict", "feedback", "operate", "approve", "admin")
PREFIX = "dl-"
MAX_TEAM, MAX_OWNER = 64, 120  # characters of the store's columns
MAX_BUDGET = 1e9  # in billionths, it fits into 64 bits


@dataclass(frozen=True)
class RateLimit:
    """Limits per minute; None: unlimited."""

    owner: str  # key:ID or team:TEAM
    rpm: int | None
    tpm: int | None


@dataclass(frozen=True)
class Key:
    """An authenticated caller and its permissions."""

    id: str
    team: str
    roles: frozenset[str]
    limits: tuple[RateLimit, ...] = ()
    budgets: tuple[str, ...] = ()  # owners of the budgets that pay for its calls
    owner: str = ""  # the person who owns the key; empty: unknown
    labels: Labels = frozenset()  # of the passages that it sees beside those without labels

    def has(self, *roles: str) -> bool:
        """Whether it has one of these roles; an admin has all."""
        return bool(self.roles & {*roles, "admin"})

    def require(self, *roles: str) -> None:
        """Raises: ApiError when this key has none of these roles."""
        if not self.has(*roles):
            may = ", ".join(sorted(self.roles))
            raise ApiError(403, f"This key lacks the role {' or '.join(roles)}; it has: {may}.", code="forbidden")


# of a direct call while there are no keys: its sender can read the releases' folders
LOCAL_KEY = Key("local", "local", frozenset({"predict", "feedback"}), labels=None)


@dataclass(frozen=True)
class Keyring:
    """All valid keys; `guarded` is True once a key was ever created."""

    by_hash: Mapping[str, Key]
    guarded: bool

    def find(self, secret: str | None) -> Key:
        """The key with this secret.

        Raises: ApiError.
        """
        if not secret:
            raise ApiError(401, "An API key is needed: Authorization: Bearer KEY", code="missing_api_key")
        key = self.by_hash.get(hash_secret(secret))
        if key is None:
            raise ApiError(401, "The API key is unknown, or it was revoked.", code="invalid_api_key")
        return key


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """The secret that a request carries as `Authorization: Bearer SECRET`."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def hash_secret(secret: str) -> str:
    """A plain hash is enough: 256 random bits can't be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    store: Store, team: str, roles: Sequence[str], rpm: int | None, tpm: int | None, budget: float | None
) -> tuple[str, str]:
    """Create a key owned by this process's user; return its id and its secret, which is stored nowhere.

    Raises: InputError for an unknown role, an invalid name or an invalid budget.
    """
    check_name(team, "--team", MAX_TEAM)
    check_budget(budget)
    if wrong := sorted(set(roles) - set(ROLES)):
        raise InputError("The role is unknown.", where="--role", found=", ".join(wrong), allowed=", ".join(ROLES))
    id_, secret = secrets.token_hex(4), PREFIX + secrets.token_urlsafe(32)
    row = {"id": id_, "hash": hash_secret(secret), "team": team, "roles": sorted(set(roles)), "rpm": rpm, "tpm": tpm}
    person = current_user()
    with store.changing() as connection:
        connection.execute(insert(keys).values(**row, created_at=now(), owner=person, created_by=person))
        if budget is not None:
            connection.execute(
                insert(budgets).values(owner=f"key:{id_}", amount=round(budget * NANO), spent=0, reserved=0)
            )
        limits: dict[str, Any] = {"rpm": rpm, "tpm": tpm, "budget": budget}
        record_audit_event(connection, "key.create", id_, team=team, roles=row["roles"], owner=person, **limits)
    return id_, secret


def set_key_owner(store: Store, id_: str, owner: str) -> None:
    """Set the person who owns a key; its approvals count as theirs.

    Raises: InputError when there is no such key, or the name is not valid.
    """
    check_name(owner, "--owner", MAX_OWNER)
    with store.changing() as connection:
        if not connection.execute(update(keys).where(keys.c.id == id_).values(owner=owner.strip())).rowcount:
            raise InputError("There is no such key.", found=id_, todo="driftline keys list")
        record_audit_event(connection, "key.update", id_, owner=owner.strip())


def set_key_labels(store: Store, id_: str, labels: Sequence[str]) -> None:
    """Set the labels of a key; they replace its earlier ones.

    Raises: InputError when there is no such key, or a label is not valid.
    """
    check_labels(labels)
    unique = sorted(set(labels))
    with store.changing() as connection:
        if not connection.execute(update(keys).where(keys.c.id == id_).values(labels=unique)).rowcount:
            raise InputError("There is no such key.", found=id_, todo="driftline keys list")
        record_audit_event(connection, "key.update", id_, labels=unique)


def check_name(name: str, where: str, longest: int) -> None:
    """Raises: InputError unless the name is one line of printable characters and not too long."""
    if not name.strip() or len(name) > longest or not name.isprintable():
        allowed = f"1 to {longest} printable characters"
        raise InputError("The name is not valid.", where=where, found=repr(name[:80]), allowed=allowed)


def check_labels(labels: Sequence[str]) -> None:
    """Raises: InputError unless each label is valid."""
    if wrong := [label for label in labels if not is_label(label)]:
        raise InputError(
            "The label is not valid.",
            where="--labels",
            found=", ".join(repr(label[:80]) for label in wrong),
            allowed="1 to 64 letters, digits, dots, hyphens and underscores, a letter or digit first",
        )


def check_budget(budget: float | None) -> None:
    """Raises: InputError unless the budget is None or within the limits."""
    if budget is not None and not 0 <= budget <= MAX_BUDGET:
        allowed = f"0 to {MAX_BUDGET:,.0f}"
        raise InputError("The budget is not valid.", where="--budget", found=str(budget), allowed=allowed)


def revoke_key(store: Store, id_: str) -> None:
    """Raises: InputError when there is no such key."""
    with store.changing() as connection:
        revoked = connection.execute(
            update(keys).where(keys.c.id == id_, keys.c.revoked_at.is_(None)).values(revoked_at=now())
        )
        if not revoked.rowcount:
            raise InputError("There is no such key.", found=id_, todo="driftline keys list")
        record_audit_event(connection, "key.revoke", id_)


def set_team_limits(store: Store, team: str, rpm: int | None, tpm: int | None, budget: float | None) -> None:
    """Set the limits that all keys of a team share.

    Raises: InputError for an invalid name or budget.
    """
    check_name(team, "TEAM", MAX_TEAM)
    check_budget(budget)
    with store.changing() as connection:
        if not connection.execute(update(teams).where(teams.c.team == team).values(rpm=rpm, tpm=tpm)).rowcount:
            connection.execute(insert(teams).values(team=team, rpm=rpm, tpm=tpm))
        if budget is None:
            connection.execute(budgets.delete().where(budgets.c.owner == f"team:{team}"))
        elif not connection.execute(
            update(budgets).where(budgets.c.owner == f"team:{team}").values(amount=round(budget * NANO))
        ).rowcount:
            connection.execute(
                insert(budgets).values(owner=f"team:{team}", amount=round(budget * NANO), spent=0, reserved=0)
            )
        record_audit_event(connection, "team.update", team, rpm=rpm, tpm=tpm, budget=budget)


def list_keys(store: Store) -> list[dict[str, Any]]:
    """All keys with their budgets, revoked keys included; without secrets."""
    with store.reading() as connection:
        rows = connection.execute(select(keys).order_by(keys.c.created_at)).mappings().all()
        held = {row["owner"]: row for row in connection.execute(select(budgets)).mappings()}
    listed = []
    for row in rows:
        budget = held.get(f"key:{row['id']}")
        money = {"budget": "amount", "spent": "spent", "reserved": "reserved"}
        amounts = {name: budget[column] / NANO if budget else None for name, column in money.items()}
        listed.append({name: value for name, value in row.items() if name != "hash"} | amounts)
    return listed


def read_keyring(store: Store) -> Keyring:
    with store.reading() as connection:
        rows = connection.execute(select(keys)).mappings().all()
        together = {row["team"]: row for row in connection.execute(select(teams)).mappings()}
        owners = set(connection.execute(select(budgets.c.owner)).scalars())
    found = {}
    for row in rows:
        if row["revoked_at"] is not None:
            continue
        try:
            found[row["hash"]] = _key_of(row, together.get(row["team"]), owners)
        except Exception:  # one unusable key must not prevent that others are revoked
            logging.getLogger("driftline").exception("The key %s can't be read, so it is not valid.", row["id"])
    return Keyring(found, guarded=bool(rows))


def _key_of(row: RowMapping, team: RowMapping | None, owners: Set[str]) -> Key:
    limits = [RateLimit(f"key:{row['id']}", row["rpm"], row["tpm"])]
    if team:
        limits.append(RateLimit(f"team:{row['team']}", team["rpm"], team["tpm"]))
    return Key(
        id=row["id"],
        team=row["team"],
        roles=frozenset(row["roles"]),
        owner=row["owner"],
        labels=frozenset(row["labels"]),
        limits=tuple(limit for limit in limits if limit.rpm or limit.tpm),
        budgets=tuple(owner for owner in (f"key:{row['id']}", f"team:{row['team']}") if owner in owners),
    )
