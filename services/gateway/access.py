"""Authentication: by an API key, the operator's key, or a direct connection of the owner of this installation."""

from __future__ import annotations

from starlette.requests import Request

from services.store.api_error import ApiError
from services.store.keys import LOCAL_KEY, Key, Keyring, bearer_token, hash_secret
from tasks.core.local_secrets import OPERATOR, local_secret, secret_file
from tasks.core.processes import current_user
from tasks.core.settings import Settings

FORWARDED = ("forwarded", "x-forwarded-", "via", "x-real-ip", "origin", "sec-fetch-")  # beginnings of header names


class Access:
    """Authenticates requests by their headers and their connection."""

    def __init__(self, settings: Settings) -> None:
        self._operator_hash = hash_secret(local_secret(settings.state, OPERATOR))
        self._operator = Key(OPERATOR, OPERATOR, frozenset({"admin"}), owner=current_user(), labels=None)
        self._secret_file = secret_file(settings.state, OPERATOR)

    def authenticate(self, http: Request, keyring: Keyring, *roles: str) -> Key:
        """Return the request's key, which must have one of these roles.

        Raises: ApiError.
        """
        key = self._find_key(http, keyring)
        key.require(*roles)
        return key

    def may_inspect(self, http: Request, keyring: Keyring) -> bool:
        """Whether the sender may read metrics and champions: the role `operate`, or the owner, connected directly."""
        key = self._lookup(bearer_token(http.headers), keyring)
        return key.has("operate") if key else is_direct(http)

    def require_inspect(self, http: Request, keyring: Keyring) -> None:
        """Raises: ApiError."""
        if not self.may_inspect(http, keyring):
            self._find_key(http, keyring).require("operate")

    def _find_key(self, http: Request, keyring: Keyring) -> Key:
        secret = bearer_token(http.headers)
        if key := self._lookup(secret, keyring):
            return key
        if keyring.guarded:
            keyring.find(secret)  # raises
        if is_direct(http):
            return LOCAL_KEY
        raise ApiError(
            401,
            "An API key is needed: without one, only direct requests of this machine's owner are allowed. Send the "
            f"operator's key, from {self._secret_file.relative_to(self._secret_file.parents[1])} of the state folder, "
            "or create one: driftline keys create",
            code="missing_api_key",
        )

    def _lookup(self, secret: str | None, keyring: Keyring) -> Key | None:
        if secret is None:
            return None
        hashed = hash_secret(secret)
        return self._operator if hashed == self._operator_hash else keyring.by_hash.get(hashed)


def is_direct(http: Request) -> bool:
    """Whether a process of the owner sends the request directly, not through a proxy or from a web page.

    The connection shows a proxy of another user; only the headers show a proxy of the owner.
    """
    if any(name.startswith(FORWARDED) for name in http.headers):
        return False
    connection = http.scope.get("state", {}).get("connection")
    return connection is not None and connection.is_owner
