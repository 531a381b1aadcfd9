"""Who sends a request, and what they may: a key, the operator's key, or this machine's owner on a direct connection."""

from __future__ import annotations

from starlette.requests import Request

from services.store.api_error import ApiError
from services.store.keys import LOCAL_KEY, Key, Keyring, bearer_token, hash_secret
from tasks.core.local_secrets import OPERATOR, local_secret, secret_file
from tasks.core.processes import current_user
from tasks.core.settings import Settings

FORWARDED = ("forwarded", "x-forwarded-", "via", "x-real-ip", "origin", "sec-fetch-")  # beginnings of header names


class Access:
    """What the headers and the connection of a request open."""

    def __init__(self, settings: Settings) -> None:
        self._operator_hash = hash_secret(local_secret(settings.state, OPERATOR))
        self._operator = Key(OPERATOR, OPERATOR, frozenset({"admin"}), owner=current_user())
        self._secret_file = secret_file(settings.state, OPERATOR)

    def key(self, http: Request, keyring: Keyring, *roles: str) -> Key:
        """The key of a request, which has one of these roles.

        Raises: Refusal.
        """
        key = self._find(http, keyring)
        key.require(*roles)
        return key

    def may_inspect(self, http: Request, keyring: Keyring) -> bool:
        """Whether metrics and the like are for whoever sends this: a key that may operate, or the owner directly."""
        key = self._known(bearer_token(http.headers), keyring)
        return key.has("operate") if key else is_direct(http)

    def require_inspect(self, http: Request, keyring: Keyring) -> None:
        """Raises: Refusal."""
        if not self.may_inspect(http, keyring):
            self._find(http, keyring).require("operate")

    def _find(self, http: Request, keyring: Keyring) -> Key:
        secret = bearer_token(http.headers)
        if key := self._known(secret, keyring):
            return key
        if keyring.guarded:
            keyring.find(secret)  # raises
        if is_direct(http):
            return LOCAL_KEY
        raise ApiError(
            401,
            "An API key is needed: without one only this machine's owner may ask, directly. Send the operator's key, "
            f"which lies in {self._secret_file.relative_to(self._secret_file.parents[1])} of the state folder, or "
            "make one: driftline keys create",
            code="missing_api_key",
        )

    def _known(self, secret: str | None, keyring: Keyring) -> Key | None:
        if secret is None:
            return None
        hashed = hash_secret(secret)
        return self._operator if hashed == self._operator_hash else keyring.by_hash.get(hashed)


def is_direct(http: Request) -> bool:
    """Whether a process of this machine's owner sends this by itself, neither a proxy's nor a web page's doing.

    A proxy is another user's process; one that the owner runs is noticed by its headers alone.
    """
    if any(name.startswith(FORWARDED) for name in http.headers):
        return False
    connection = http.scope.get("state", {}).get("connection")
    return connection is not None and connection.is_owners
