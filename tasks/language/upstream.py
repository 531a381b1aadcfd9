"""A model behind an OpenAI-compatible address: its name in a case, its address and key, and what is known of it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from tasks.core.config import Result, canonical_json
from tasks.core.errors import CaseError, DriftlineError, Unavailable

UPSTREAM = "upstream.json"  # in the folder of a base, candidate or release, in place of weights
SOURCE = re.compile(r"openai(?:\+(https?))?://(\$[A-Za-z_]\w*|[^$#?\s]+)#(\S+)")
FORM = "openai://HOST/v1#MODEL, or openai://$NAME#MODEL with the address in the environment variable NAME"
NOT_PINNED = "weights, chat template and engine of the server"


class Upstream(Result):
    """What decides the answers of a model behind an address, as far as it is known from outside. It has no secret."""

    source: str  # as the case states it
    address: str  # of the API, with its version: https://host/v1
    model: str
    key: str = ""  # name of the environment variable with the key
    parameters: dict[str, Any] = Field({})  # of each request; null removes one
    tokens_field: str = "max_tokens"  # name of the limit of an answer; newer models of OpenAI want another
    json_schema: bool = True  # whether it follows a JSON schema
    fingerprints: tuple[str, ...] = Field(())  # of the answers to the first requests; empty: it sends none
    facts: dict[str, Any] = Field({})  # what its list of models states of this one

    @property
    def secret(self) -> str:
        """The key; empty without a variable. Raises: Unavailable when the variable is not set."""
        if self.key and not os.environ.get(self.key):
            raise Unavailable(
                f"The key of {self.model} is not set.",
                where=f"model.key: {self.key}",
                found="no such variable, or an empty one",
                todo=f"Set {self.key} in .env, and run `driftline up` again if the stack runs.",
            )
        return os.environ.get(self.key, "") if self.key else ""

    @property
    def current_address(self) -> str:
        """The address now: that of the variable in the source, if it is set."""
        name = _variable(self.source)
        return address_in(self.source) if name and os.environ.get(name) else self.address

    @property
    def headers(self) -> dict[str, str]:
        """Raises: Unavailable when the key is not set."""
        return {"authorization": f"Bearer {self.secret}"} if self.key else {}

    def request_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request as this server takes it: its model, the case's parameters, and its name of the tokens' limit."""
        limit = body.pop("max_tokens", None)
        body = {**body, self.tokens_field: limit, "model": self.model, **self.parameters}
        return {name: value for name, value in body.items() if value is not None}

    def write(self, path: Path) -> None:
        path.write_text(canonical_json(self.model_dump(mode="json")) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Upstream:
        """Raises: DriftlineError when the file can't be read."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DriftlineError(
                "The description of the model's server can't be read.",
                where=str(path),
                found=" ".join(str(error).split())[:300],
                todo="Delete the folder, and run the case again.",
            ) from error


def is_remote(source: str) -> bool:
    """Whether a source names a model behind an address."""
    return source.startswith(("openai://", "openai+"))


def source_problem(source: str) -> str:
    """What is wrong with an openai:// source, without its environment; empty: nothing."""
    match = SOURCE.fullmatch(source)
    if match is None:
        return f"must be {FORM}"
    if not match[2].startswith("$"):
        return _url_problem(_url(match[1], match[2]))
    return f"{match[2]} holds the scheme too: write openai://{match[2]}" if match[1] else ""


def model_in(source: str) -> str:
    """The model's name."""
    return source.partition("#")[2]


def address_in(source: str) -> str:
    """The address of the API, such as https://host/v1, without a slash at its end.

    Raises: CaseError when its variable is not set, or holds no address.
    """
    match = SOURCE.fullmatch(source)
    assert match, source
    name = _variable(source)
    url = os.environ.get(name, "") if name else _url(match[1], match[2])
    if problem := _url_problem(url) if url else "not set":
        raise CaseError(
            "The model has no address.",
            where=f"model.source: {source}",
            found=f"{name or 'the address'}: {problem}",
            allowed="http://... or https://..., with /v1, without a user or a key",
            todo=f"Set {name} in the environment or in .env." if name else "Correct model.source.",
        )
    return url.rstrip("/")


def _variable(source: str) -> str:
    match = SOURCE.fullmatch(source)
    return match[2][1:] if match and match[2].startswith("$") else ""


def _url(scheme: str | None, rest: str) -> str:
    host = urlsplit(f"//{rest}").hostname or ""
    path = "" if "/" in rest.rstrip("/") else "/v1"
    return f"{scheme or ('http' if _is_private(host) else 'https')}://{rest.rstrip('/')}{path}"


def _is_private(host: str) -> bool:
    """Whether a host is this machine or in a private network; names without a dot are not public."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal"))
    return address.is_loopback or address.is_private or address.is_link_local


def _url_problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "no http:// or https:// address"
    if parts.username or parts.password:
        return "a secret stands in the address: name its variable in model.key"
    if parts.query or parts.fragment:
        return "an address has no query and no fragment"
    return "port 0" if port == 0 else ""
