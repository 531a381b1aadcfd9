"""Prompts by reference: a file of the case, an alias, a version or a digest of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from flows.case import LanguageCase, load_case
from tasks.core.errors import CaseError, InputError
from tasks.core.settings import settings
from tasks.language.prompt_file import FOLDER, SUFFIX, load_prompt, prompt_files
from tasks.language.prompts import Prompt, released_prompt
from tasks.release.prompt_registry import RegisteredPrompt, registered_prompts
from tasks.release.seal import MANIFEST, release_folder


@dataclass(frozen=True)
class Reference:
    """A prompt and what it is called."""

    title: str
    prompt: Prompt


def language_case(name: str) -> LanguageCase:
    """Raises: CaseError when the case has no prompt."""
    case = load_case(name, settings().cases)
    if not isinstance(case, LanguageCase):
        raise CaseError("Only a language case has prompts.", where=f"case {name}", found=f"kind: {case.kind}")
    return case


def resolve_prompt(case: LanguageCase, reference: str | None) -> Reference:
    """The prompt that a reference names; without one, that of the case.

    Raises: CaseError for an invalid file; InputError naming the existing prompts.
    """
    if reference is None:
        return Reference("the case", case.chat_spec.prompt)
    files = {path.name.removesuffix(SUFFIX): path for path in prompt_files(case.folder)}
    stem = reference.rpartition("/")[2].removesuffix(SUFFIX)
    if stem in files and reference in (stem, f"{stem}{SUFFIX}", f"{FOLDER}/{stem}{SUFFIX}", str(files[stem])):
        return Reference(f"{FOLDER}/{stem}{SUFFIX}", load_prompt(files[stem]).bound(**case.answer.texts))
    registered = registered_prompts(settings().tracking, case.name)
    matches = [each for each in registered if _is_named(each, reference)]
    if len(matches) == 1:
        return Reference(f"version {matches[0].version}", sealed_prompt(case.name, matches[0]))
    versions = (f"{each.version} ({', '.join((each.label, *each.aliases))})" for each in registered)
    raise InputError(
        f"{'No prompt' if not matches else 'More than one prompt'} of {case.name} has the name {reference}.",
        where=str(case.folder / FOLDER),
        found=reference,
        allowed=", ".join([*files, *versions]) or "none yet: it stands in case.yaml",
        todo=f"driftline prompt list {case.name}",
    )


def sealed_prompt(case: str, registered: RegisteredPrompt) -> Prompt:
    """The prompt of a version, from its release. Raises: InputError when the release's folder is gone."""
    folder = release_folder(settings().state, case, registered.release)
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"The release of the prompt {registered.label} is gone.",
            where=str(folder),
            todo="Restore it from a backup.",
        )
    return released_prompt(folder)


def _is_named(registered: RegisteredPrompt, reference: str) -> bool:
    is_digest = len(reference) >= 4 and registered.digest.startswith(reference.rpartition("@")[2])
    return reference in registered.aliases or str(registered.version) == reference.removeprefix("v") or is_digest


def prompt_text(prompt: Prompt) -> str:
    """The prompt as YAML, with what is not at its default."""
    values = prompt.model_dump(mode="json", exclude_defaults=True) | ({"notes": prompt.notes} if prompt.notes else {})
    return as_yaml(values)


def as_yaml(values: Mapping[str, Any]) -> str:
    """Values as YAML, in their order."""
    return str(yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)
