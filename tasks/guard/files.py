"""The guardrails of a release as files: the rules, and the folders of the classifiers that they use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from tasks.core.config import Result, digest_of
from tasks.core.errors import NoDataYet
from tasks.guard.config import Guardrails

RULES, FOLDER = "guardrails.json", "guard"  # names in a release's folder
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
