"""A scorer of the user's own: a function in a Python file of the case's folder."""

from __future__ import annotations

import ast
import math
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from tasks.core.errors import CaseError

PLACE = re.compile(r"([\w./-]+?)(?:\.py)?:([A-Za-z_]\w*)")
PARAMETERS = ("message", "answer", "reference", "required_facts")
CustomFunction = Callable[[str, str, str, Sequence[str]], float]


@dataclass(frozen=True)
class CustomScorer:
    """A function that scores an answer."""

    file: str
    function: str
    source: str  # content of the file

    @classmethod
    def of(cls, code: ScorerCode) -> CustomScorer:
        """The scorer of a value in the case."""
        place, _, source = code.partition("\n")
        file, _, function = place.partition(":")
        return cls(file, function, source)

    def load(self) -> CustomFunction:
        """Execute the source, and return the function with its results checked.

        Raises: CaseError with file and line, also from the function when it fails or returns no number from 0 to 1.
        """
        names: dict[str, Any] = {"__name__": Path(self.file).stem, "__file__": self.file}
        try:
            exec(compile(self.source, self.file, "exec"), names)  # the case's own code, as the user wrote it
            function = names[self.function]
        except Exception as error:
            raise self._failure("can't be loaded", error) from error

        def score(message: str, answer: str, reference: str, required_facts: Sequence[str]) -> float:
            try:
                value = function(message, answer, reference, list(required_facts))
                number = float(value)
            except Exception as error:
                raise self._failure("failed", error, answer) from error
            if not 0 <= number <= 1 or math.isnan(number):
                raise CaseError(
                    f"The scorer {self.function} returned no score.",
                    where=self.file,
                    found=f"{value!r} for the answer {answer[:80]!r}",
                    allowed="a number from 0 to 1",
                    todo="Correct the function.",
                )
            return number

        return score

    def _failure(self, what: str, error: Exception, answer: str | None = None) -> CaseError:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        line = f", line {frames[-1].lineno}" if frames else ""
        to = "" if answer is None else f", for the answer {answer[:80]!r}"
        return CaseError(
            f"The scorer {self.function} {what}.",
            where=f"{self.file}{line}",
            found=f"{type(error).__name__}: {error}{to}",
            todo=f"Correct the file; the function takes {', '.join(PARAMETERS)}.",
        )


def _read(value: Any, info: ValidationInfo) -> Any:
    """Append the file's content to FILE.py:FUNCTION; nothing of it is executed."""
    if not isinstance(value, str) or "\n" in value:
        return value
    match = PLACE.fullmatch(value)
    if match is None:
        raise ValueError("not FILE.py:FUNCTION, a function in a Python file of the case folder")
    folder = Path((info.context or {}).get("folder", ".")).resolve()
    file = f"{match[1]}.py"
    path = (folder / file).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"{file} lies outside the case folder")
    if not path.is_file():
        there = sorted(str(each.relative_to(folder)) for each in folder.rglob("*.py"))
        raise ValueError(f"no file {file} in the case folder; there are: {', '.join(there) or 'none'}")
    source = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(source, file)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{file}, line {getattr(error, 'lineno', '?')}: {error}") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if match[2] not in functions:
        raise ValueError(f"{file} has no function {match[2]}; there are: {', '.join(functions) or 'none'}")
    node = functions[match[2]]
    taken = [*node.args.posonlyargs, *node.args.args]
    required = len(taken) - len(node.args.defaults)
    if required > len(PARAMETERS) or (len(taken) < len(PARAMETERS) and node.args.vararg is None):
        raise ValueError(
            f"{file}, line {node.lineno}: {match[2]} takes {', '.join(each.arg for each in taken) or 'nothing'}; "
            f"it must take {', '.join(PARAMETERS)}"
        )
    return f"{file}:{match[2]}\n{source}"


# FILE.py:FUNCTION, and in the lines after it the file: so each digest of the case covers the code
ScorerCode = Annotated[str, BeforeValidator(_read)]
