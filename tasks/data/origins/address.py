"""The address of a source: its kind, its secrets from the environment, and the text that may be shown."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote, urlsplit

from tasks.core.errors import CaseError

if TYPE_CHECKING:
    from tasks.data.config import Source

Kind = Literal["local", "remote", "database", "texts"]
VARIABLE = re.compile(r"\$(?:\{([A-Z][A-Z0-9_]*)\}|([A-Z][A-Z0-9_]*))")  # lower case is part of the URI: $filter
SCHEMES: dict[str, Kind] = {
    **{"file": "local", "package": "local"},
    **{"http": "remote", "https": "remote", "s3": "remote"},
    "guard": "texts",
}
SECRET = re.compile(  # a password, or the token of a signed address
    r"^[^:/?#]+://[^:/?#@]*:(?!\$)[^/?#@]+@|[?&](\w+-)*(\w*token|api_?key|sig|signature|secret|password)=(?!\$)[^&]",
    re.IGNORECASE,
)
SHORTEST_SECRET = 4  # characters; hiding shorter ones would make a message unreadable


def address_problem(uri: str, query: str) -> str:
    """What is wrong with a URI and its query, or empty."""
    scheme = uri.partition("://")[0]
    if scheme in (*SCHEMES, "log") and query:
        return f"a query is of a database only; {scheme}:// has rows as they are: use sql"
    if scheme not in (*SCHEMES, "log") and not query:
        return "a database needs a query: the rows to read"
    if SECRET.search(uri) and scheme not in ("file", "package"):
        return "a secret stands in the uri: write $VARIABLE in its place, and set that in the environment or in .env"
    return ""


@dataclass(frozen=True)
class Address:
    """Where a source lies, as the case says it."""

    uri: str  # variables stand for secrets
    query: str = ""  # of a database
    times: tuple[str, ...] = ()  # timestamp columns: when a row is known, then when its late values are
    mixed: bool = False  # its files may be of several kinds: documents

    @classmethod
    def of(cls, source: Source) -> Address:
        known = source.known_at or source.time
        return cls(source.uri, source.query, (known, *source.late) if known else ())

    @property
    def kind(self) -> Kind:
        return SCHEMES.get(self.uri.partition("://")[0], "database") if not self.query else "database"

    def resolve(self) -> str:
        """The URI with the values of its variables. Never log it.

        Raises: CaseError when a variable is not set.
        """
        missing = [name for name in self._variables() if not os.environ.get(name)]
        if missing:
            raise CaseError(
                f"The variable {missing[0]} of a source's URI is not set.",
                where=self.uri,
                todo=f"Set {', '.join(missing)} in the environment or in .env.",
            )
        return VARIABLE.sub(self._quoted_value, self.uri)

    def hide_secrets(self, text: str) -> str:
        """Replace the values of the variables, and the password of the URI, in a message of a driver or server."""
        values = {os.environ.get(name, ""): f"${name}" for name in self._variables()}
        with contextlib.suppress(ValueError):  # a message must be shown whatever the URI is
            values[urlsplit(VARIABLE.sub(self._quoted_value, self.uri)).password or ""] = "***"
        for value, name in sorted(values.items(), key=lambda item: -len(item[0])):
            for form in {value, unquote(value), *(quote(value, safe=safe) for safe in ("", "/", "/:?@!$'()*+,;=-._~"))}:
                text = text.replace(form, name) if len(form) >= SHORTEST_SECRET else text
        return text

    def _variables(self) -> list[str]:
        if self.kind == "local":
            return []  # a file may be named like a variable
        return [a or b for a, b in VARIABLE.findall(self.uri)]

    def _quoted_value(self, match: re.Match[str]) -> str:
        value = os.environ.get(match[1] or match[2], "")
        if match[0] == self.uri:
            return value
        within = "@" in self.uri[match.end() :] or "?" in self.uri[: match.start()]  # user, password or parameter
        return quote(value, safe="" if within else "/:")
