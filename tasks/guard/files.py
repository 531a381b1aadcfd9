"""The guardrails of a release as files: the rules, and the folders of the classifiers that they use."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.core.config import Result, digest_of
from tasks.core.errors import DataError, NoDataYet
from tasks.core.files import file_digest
from tasks.guard.config import Guardrails
from tasks.guard.engine import GuardEngine

RULES, FOLDER, EMBEDDER = "guardrails.json", "guard", "embedder"  # names in a release's folder
GUARD_PATH = "/guard"  # of a release's process, which sends these files
TRAINED = "guardrails"  # folder of trained classifiers in the state folder


class GuardSpec(Result):
    """The guardrails of a candidate: rules, and the folder of each classifier."""

    guardrails: Guardrails = Guardrails()
    classifiers: dict[str, Path] = Field(default_factory=dict)

    def files(self) -> dict[str, Path | str]:
        """By their names in the release's folder: text to write, or a file to copy; none without a rule."""
        if self.guardrails.is_empty:
            return {}
        return {
            RULES: self.guardrails.model_dump_json(indent=1),
            **{
                f"{FOLDER}/{name}/{path.relative_to(folder)}": path
                for name, folder in sorted(self.classifiers.items())
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        }


def trained_folder(state: Path) -> Path:
    """The folder with a folder for each trained classifier."""
    return state / TRAINED


def find_guard_spec(guardrails: Guardrails, state: Path) -> GuardSpec:
    """The rules with their classifiers. Raises: NoDataYet for one that is not trained."""
    folders = {name: trained_folder(state) / name for name in guardrails.classifiers}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise NoDataYet(
                f"The classifier {name} of a guardrail is not trained yet.",
                where=str(folder),
                todo=f"Train it: driftline guard train {name}",
            )
    return GuardSpec(guardrails=guardrails, classifiers=folders)


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


def open_guard(folder: Path) -> GuardEngine:
    """The rules in a release's folder; without any for a release that has none.

    Raises: DataError when they can't be read.
    """
    path = folder / RULES
    try:
        guardrails = Guardrails.model_validate_json(path.read_bytes()) if path.is_file() else Guardrails()
    except ValidationError as error:
        raise DataError("The guardrails of a release can't be read.", where=str(path), found=str(error)) from error
    embedder = folder / EMBEDDER
    return GuardEngine(guardrails, folder / FOLDER, (embedder, None) if embedder.is_dir() else None)
