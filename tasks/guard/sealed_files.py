"""The files of a release's guardrails: their names, digests and bytes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from tasks.core.config import digest_of
from tasks.core.files import file_digest

RULES, FOLDER, EMBEDDER = "guardrails.json", "guard", "embedder"  # names in a release's folder
GUARD_PATH = "/guard"  # of a release's process, which sends these files


def is_guard_file(name: str) -> bool:
    """Whether a file of a release belongs to its guardrails."""
    return name == RULES or name.startswith(f"{FOLDER}/")


def guard_digest(files: Mapping[str, str]) -> str:
    """The digest of the guardrails among a release's files, by name; empty: it has none."""
    own = {name: digest for name, digest in files.items() if is_guard_file(name)}
    return digest_of(own) if own else ""


def guard_files(folder: Path) -> dict[str, str]:
    """The digests of the files of guardrails in a release's folder, by name."""
    names = [RULES, *(str(path.relative_to(folder)) for path in sorted((folder / FOLDER).rglob("*")))]
    return {name: file_digest(folder / name) for name in names if (folder / name).is_file()}


def encode_guard(folder: Path) -> dict[str, str]:
    """The files of guardrails in a release's folder by name, as base64."""
    return {name: b64encode((folder / name).read_bytes()).decode() for name in guard_files(folder)}
