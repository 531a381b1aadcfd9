"""The exceptions that Driftline raises.

DriftlineError            exit 1   Driftline could not go on
├── InputError            exit 2   the user's files, options or data are wrong
│   ├── CaseError                  a case folder: unknown case or key, wrong type or bound
│   └── DataError                  a data source: missing, empty, without a column, or without a valid row
│       └── NoDataYet              no champion, or no requests since: the next deployed run tries again
│           └── NothingServed  exit 0   nothing to monitor yet, which is not an error
├── GateFailed            exit 3   a verdict other than promote
│   └── InsufficientEvidence  exit 7   nothing failed for certain, but more examples are needed to promote
├── Busy                  exit 4   another run holds the lock
├── Unavailable           exit 5   a server, port, disk or remote does not answer
└── WaitsForApproval      exit 6   a person must approve first
"""

from __future__ import annotations

from collections.abc import Callable


class DriftlineError(Exception):
    """States what went wrong, where, the value found, the allowed values and how to fix it."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", found: str = "", allowed: str = "", todo: str = "") -> None:
        self.what, self.where, self.found, self.allowed, self.todo = what, where, found, allowed, todo
        super().__init__(what, where, found, allowed, todo)  # positional, so that pickling keeps every field

    def __reduce__(self) -> tuple[Callable[..., DriftlineError], tuple[type[DriftlineError], str, dict[str, str]]]:
        parts = {"where": self.where, "found": self.found, "allowed": self.allowed, "todo": self.todo}
        return _rebuild, (type(self), self.what, parts)

    def __str__(self) -> str:
        parts = [("where", self.where), ("found", self.found), ("allowed", self.allowed), ("do", self.todo)]
        return "\n".join([self.what, *(f"  {name + ':':<9}{text}" for name, text in parts if text)])


def _rebuild(kind: type[DriftlineError], what: str, parts: dict[str, str]) -> DriftlineError:
    return kind(what, **parts)


class InputError(DriftlineError):
    exit_code = 2


class CaseError(InputError):
    pass


class DataError(InputError):
    pass


class NoDataYet(DataError):
    pass


class NothingServed(NoDataYet):
    exit_code = 0


class GateFailed(DriftlineError):
    exit_code = 3


class InsufficientEvidence(GateFailed):
    exit_code = 7


class Busy(DriftlineError):
    exit_code = 4


class Unavailable(DriftlineError):
    exit_code = 5


class WaitsForApproval(DriftlineError):
    exit_code = 6
