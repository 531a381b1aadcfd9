"""Prompt files: configs/CASE/prompts/NAME.yaml, and NAME.tests.yaml beside each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, TypeAdapter, ValidationError, ValidationInfo

from tasks.core.errors import CaseError
from tasks.core.yaml_file import load_yaml
from tasks.language.prompts import Prompt, PromptMessage, problems

FOLDER, SUFFIX, TESTS = "prompts", ".yaml", ".tests.yaml"


def prompt_files(case: Path) -> list[Path]:
    """The prompt files of a case."""
    return sorted(path for path in (case / FOLDER).glob(f"*{SUFFIX}") if not path.name.endswith(TESTS))


def load_prompt(path: Path) -> Prompt:
    """Read a prompt file, with its tests. Raises: CaseError with the file and the line."""
    try:
        return Prompt.model_validate(_values(path))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    except ValueError as error:
        found = str(error)
    raise CaseError(f"The prompt {path.name} is not valid.", where=str(path), found=found, todo="Correct the file.")


def _values(path: Path) -> dict[str, Any]:
    """The values of a prompt file, and of its tests. Raises: ValueError with the file and the line."""
    shown, tests = f"{FOLDER}/{path.name}", path.with_name(path.stem + TESTS)
    text, values = _read(path, shown)
    if wrong := {"name", "tests"} & set(values):
        raise ValueError(f"{shown}: {min(wrong)} is not a key: the name is that of the file, tests are in {tests.name}")
    if tests.is_file():
        values["tests"] = _read(tests, f"{FOLDER}/{tests.name}")[1]
    try:
        messages = TypeAdapter(tuple[PromptMessage, ...]).validate_python(values.get("messages", ()))
        variables = TypeAdapter(dict[str, Any]).validate_python(values.get("variables", {}))
    except ValidationError:
        return {**values, "name": path.stem}  # Prompt has the same errors, and more
    for problem in problems(messages, variables):
        line = _first_lines(text)[problem.message] + problem.line - 1
        raise ValueError(f"{shown}, line {line}: {problem.what}")
    return {**values, "name": path.stem}


def _read(path: Path, shown: str) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        values = load_yaml(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{shown} holds no keys; a prompt has messages, a test set has tests")
    return text, values


def _first_lines(text: str) -> list[int]:
    """The line on which the content of each message begins."""
    root: Any = yaml.compose(text, yaml.SafeLoader)
    entries = {key.value: value for key, value in root.value}["messages"].value
    contents = [next(value for key, value in entry.value if key.value == "content") for entry in entries]
    return [each.start_mark.line + (2 if each.style in ("|", ">") else 1) for each in contents]


def _read_prompt(value: Any, info: ValidationInfo) -> Any:
    """Replace the name of a prompt file by its content."""
    if not isinstance(value, str):
        return value
    folder = Path((info.context or {}).get("folder", "."))
    files = {f"{FOLDER}/{path.name}": path for path in prompt_files(folder)}
    if value not in files:
        raise ValueError(f"no prompt file {value} in the case folder; there are: {', '.join(files) or 'none'}")
    return _values(files[value])


PromptField = Annotated[Prompt, BeforeValidator(_read_prompt)]  # of a case
