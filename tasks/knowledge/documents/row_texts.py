"""Rows of a source as documents, through templates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CaseError
from tasks.data.config import Source
from tasks.knowledge.config import Documents

if TYPE_CHECKING:
    from jinja2 import Environment, Template


@dataclass(frozen=True)
class RowText:
    """A row as text."""

    key: str
    title: str
    text: str
    row: dict[str, Any]


def row_texts(name: str, config: Documents, source: Source, files: Sequence[Path]) -> Iterator[RowText]:
    """The rows of a source's batches as texts.

    Raises: CaseError when a template is not valid, or names a variable that is no column.
    """
    import pyarrow.parquet as pq

    columns = sorted({column for path in files for column in pq.read_schema(path).names})
    templates = _Templates(name, config, columns)
    for row in (row for path in files for row in pq.read_table(path).to_pylist()):
        key = "-".join(str(row[column]) for column in source.key)
        yield RowText(key, templates.render("title", row) or key, templates.render("template", row), row)


class _Templates:
    """The templates of a collection, in Jinja's sandbox: a column's value is data, whatever it says."""

    def __init__(self, name: str, config: Documents, columns: Sequence[str]) -> None:
        self._name, self._columns = name, columns
        environment = _environment()
        self._compiled = {
            key: self._compile(environment, key, text)
            for key, text in (("template", config.template), ("title", config.title))
        }

    def render(self, key: str, row: dict[str, Any]) -> str:
        from jinja2 import TemplateError

        try:
            return self._compiled[key].render(row).strip()
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise self._error(key, f"{type(error).__name__}: {error}") from error

    def _compile(self, environment: Environment, key: str, text: str) -> Template:
        from jinja2 import TemplateError, meta

        try:
            unknown = meta.find_undeclared_variables(environment.parse(text)) - {*self._columns}
            template = environment.from_string(text)
        except TemplateError as error:
            raise self._error(key, f"line {getattr(error, 'lineno', 1)}: {error}") from error
        if unknown and self._columns:  # a log without a request has no column yet
            raise self._error(key, f"unknown variable {', '.join(sorted(unknown))}")
        return template

    def _error(self, key: str, found: str) -> CaseError:
        return CaseError(
            "The template of a collection of documents can't be used.",
            where=f"knowledge.documents.{self._name}.{key}",
            found=found,
            allowed=f"columns of the source: {', '.join(self._columns)}",
            todo="Correct the template.",
        )


def _environment() -> Environment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
