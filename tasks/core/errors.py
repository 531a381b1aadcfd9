"""Everything Driftline raises on purpose.

DriftlineError            exit 1   something of ours could not go on
├── InputError            exit 2   the user's files, options or data are wrong
│   ├── CaseError                  a case folder: unknown case or key, wrong type or bound
│   └── DataError                  a source: missing, a column short, empty, all bad
│       └── NothingYet             no champion, or nothing asked of it since: a deployed run leaves it to the next one
├── GateFailed            exit 3   a verdict other than promote
├── Busy                  exit 4   another run holds this case
├── Unavailable           exit 5   a server, port, disk or remote does not answer
└── Waits                 exit 6   a person's word is awaited
"""

from __future__ import annotations


class DriftlineError(Exception):
    """Says what went wrong, where, what was found, what is allowed, and what to do."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", found: str = "", allowed: str = "", todo: str = "") -> None:
        self.what, self.where, self.found, self.allowed, self.todo = what, where, found, allowed, todo
        super().__init__(what, where, found, allowed, todo)  # positional, so that a pickled error comes back whole

    def __reduce__(self):
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


class NotReady(DataError):
    pass


class GateFailed(DriftlineError):
    exit_code = 3


class Busy(DriftlineError):
    exit_code = 4


class Unavailable(DriftlineError):
    exit_code = 5


class WaitsForApproval(DriftlineError):
    exit_code = 6
