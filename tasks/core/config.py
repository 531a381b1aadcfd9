"""Base models of configuration sections and stage results: frozen, strict, with a digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from tasks.core.yaml_file import load_yaml


class Section(BaseModel):
    """A part of a configuration: unknown keys are refused, and values can't be changed after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @property
    def digest(self) -> str:
        """SHA-256 over all values, hex."""
        return digest_of(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """The same JSON text for equal values: sorted keys, no spaces, floats as Python writes them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-serializable value's canonical text, hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Result(BaseModel):
    """What a stage hands to the next: small, frozen, JSON; paths and digests instead of frames and models."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _read_file(*suffixes: str, parse: Callable[[str], Any] = str) -> Callable[[Any, ValidationInfo], Any]:
    """Replace a file name with one of these suffixes by the content of that file in the case folder."""

    def read(value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str) or not value.endswith(suffixes) or len(value.split()) > 1:
            return value
        folder = Path((info.context or {}).get("folder", "."))
        path = folder / value
        if not path.is_file():
            near = sorted(str(p.relative_to(folder)) for suffix in suffixes for p in folder.rglob(f"*{suffix}"))
            raise ValueError(f"no file {value} in the case folder; there are: {', '.join(near) or 'none'}")
        try:
            return parse(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{value} can't be read: {error}") from error

    return read


def _parse_duration(value: Any) -> Any:
    """Read '90m', '6h', '35d' or a number of seconds."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)([mhd])", value.strip())):
        return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[match[2]]: int(match[1])})
    return value


Sql = Annotated[
    str, BeforeValidator(_read_file(".sql")), Field(description="SQL, or the name of a .sql file in the case.")
]
Text = Annotated[
    str,
    BeforeValidator(_read_file(".txt", ".md", ".jinja")),
    Field(description="Text, or the name of a .txt, .md or .jinja file in the case."),
]
READ_STRUCTURE = BeforeValidator(_read_file(".yaml", ".json", parse=load_yaml))  # JSON is YAML
Duration = Annotated[timedelta, BeforeValidator(_parse_duration), Field(description="A length of time: 90m, 6h, 35d.")]
