"""Which flows of which cases a push starts; `flow_for` is the rule."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.config import Result
from tasks.core.yaml_file import load_yaml
from tasks.language.prompt_file import FOLDER, SUFFIX, TESTS

CODE = ("flows/", "services/", "tasks/", "requirements.lock", "pyproject.toml", "configs/platform.yaml")
PATTERNS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class CaseFiles(Result):
    """The paths of a case in its repository; a folder includes what is in it."""

    name: str
    folder: str
    sources: tuple[str, ...] = ()  # its data
    documents: tuple[str, ...] = ()  # of its knowledge base: files, folders and patterns
    models: tuple[str, ...] = ()  # other files that it names by a file:// URI
    prompts: str = ""  # the folder of its prompts, if it tunes nothing: a change needs no training
    prompt: str = ""  # the file among them that it uses


def flows_to_start(tag: str, changed: Sequence[str], cases: Mapping[str, CaseFiles]) -> list[tuple[str, str]]:
    """Flow and case of each run that a pushed tag, or else changed files, start."""
    if tag:
        return [("release", name) for name in cases_of_tag(tag, cases)]
    flows_of = {name: {flow_for(path, case) for path in changed} for name, case in cases.items()}
    # training prepares first, and a release does both: of a prompt or document nothing but evaluation is left to do
    return [
        (next(flow for flow in ("train", "release", "prepare") if flow in flows), name)
        for name, flows in sorted(flows_of.items())
        if flows - {None}
    ]


def flow_for(path: str, case: CaseFiles) -> str | None:
    """The flow that a changed file starts for a case; None: none."""
    if any(_within(path, source) for source in (*case.sources, f"data/snapshots/{case.name}")):
        return "prepare"
    if case.prompts and _within(path, case.prompts):
        return "release" if path in (case.prompt, _tests_of(case.prompt)) else None  # others are drafts
    if any(_matches(path, place) for place in case.documents):
        return "release"
    if any(_within(path, place) for place in (case.folder, *case.models, *CODE)):
        return "train"
    return None


def cases_of_tag(tag: str, cases: Mapping[str, CaseFiles]) -> list[str]:
    """The case that a tag names, CASE/... or CASE-..., the longest name first; every case when it names none."""
    for name in sorted(cases, key=len, reverse=True):
        if tag == name or tag.startswith((f"{name}/", f"{name}-")):
            return [name]
    return sorted(cases)


def read_cases(cases: Path, tree: Path) -> dict[str, CaseFiles]:
    """The cases in a folder of a tree, valid or not: the run of an invalid one fails with its errors.

    When the folder lies outside the tree, only a change of code starts its cases.
    """
    found = {}
    for path in sorted(cases.glob("*/case.yaml")):
        folder = (path.parent.relative_to(tree) if cases.is_relative_to(tree) else path.parent).as_posix()
        try:
            values = load_yaml(path.read_text(encoding="utf-8"))
        except ValueError:
            values = None
        named = list(_file_uris(values, folder, "models"))
        found[path.parent.name] = CaseFiles(
            name=path.parent.name,
            folder=folder,
            sources=tuple(place for place, kind in named if kind == "sources"),
            documents=tuple(place for place, kind in named if kind == "documents"),
            models=tuple(place for place, kind in named if kind == "models"),
            **_prompts(values, folder),
        )
    return found


def _prompts(values: Any, folder: str) -> dict[str, str]:
    """The folder of a case's prompts and the file that it uses; nothing where its model is tuned with the prompt."""
    named = values.get("prompt") if isinstance(values, dict) and not values.get("train") else None
    if not isinstance(named, str) or not named.startswith(f"{FOLDER}/"):
        return {}
    return {"prompts": f"{folder}/{FOLDER}", "prompt": f"{folder}/{named}"}


def _tests_of(prompt: str) -> str:
    """The file of a prompt's tests."""
    return prompt.removesuffix(SUFFIX) + TESTS


def _file_uris(values: Any, folder: str, kind: str) -> Iterator[tuple[str, str]]:
    """Each relative file:// URI anywhere in a case, as a path in the repository, and the kind of file that it names."""
    if isinstance(values, str) and values.startswith("file://"):
        named = values.removeprefix("file://")
        place = posixpath.normpath(posixpath.join(folder, named))
        if not posixpath.isabs(named) and not place.startswith(".."):
            yield place, kind
    elif isinstance(values, dict):
        for key, value in values.items():
            inner = str(key) if kind == "models" and key in ("sources", "documents") else kind
            yield from _file_uris(value, folder, inner)
    elif isinstance(values, list):
        for value in values:
            yield from _file_uris(value, folder, kind)


def _within(path: str, place: str) -> bool:
    """Is it that file, DVC's pointer to it, or in that folder?"""
    place = place.rstrip("/")
    return path in (place, f"{place}.dvc") or path.startswith(f"{place}/")


def _matches(path: str, place: str) -> bool:
    """Is it that file, in that folder, or matched by that pattern? `**/` stands for folders, also none."""
    parts = (PATTERNS.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", place))
    return _within(path, place) or re.fullmatch("".join(parts), path) is not None
