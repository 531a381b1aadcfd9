"""The guardrails of a release as files: the rules, and the folders of the classifiers that they use."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from tasks.core.config import Result
from tasks.core.errors import DataError, NoDataYet
from tasks.guard.config import Guardrails
from tasks.guard.engine import GuardEngine
from tasks.guard.sealed_files import EMBEDDER, FOLDER, RULES

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


def read_rules(folder: Path) -> Guardrails:
    """The rules in a release's folder; none of a release without. Raises: DataError when they can't be read."""
    path = folder / RULES
    try:
        return Guardrails.model_validate_json(path.read_bytes()) if path.is_file() else Guardrails()
    except ValidationError as error:
        raise DataError("The guardrails of a release can't be read.", where=str(path), found=str(error)) from error


def open_guard(folder: Path) -> GuardEngine:
    """The rules in a release's folder, ready to check; without any for a release that has none.

    Raises: DataError when they can't be read.
    """
    embedder = folder / EMBEDDER
    return GuardEngine(read_rules(folder), folder / FOLDER, (embedder, None) if embedder.is_dir() else None)
