"""The history of a case's prompts: each move of an alias, read from the audit trail and the sealed releases."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from services.store.audit import audit_events
from services.store.database import Store
from tasks.core.config import Result
from tasks.language.prompts import released_prompt
from tasks.release.prompt_registry import CANDIDATE, PRODUCTION
from tasks.release.seal import MANIFEST, read_manifest, release_folder

CANDIDATE_EVENT = "prompt.candidate"
ALIASES = {CANDIDATE_EVENT: CANDIDATE, "release.promote": PRODUCTION, "release.rollback": PRODUCTION}


class PromptMove(Result):
    """One move of an alias."""

    at: datetime
    actor: str
    alias: str
    prompt: str  # name and digest; a question mark when the release's folder is gone
    release: str
    evidence: str  # the verdict, and the reason of a promotion or a rollback


def prompt_history(store: Store, state: Path, case: str) -> list[PromptMove]:
    """The moves of both aliases, the newest first; a promotion that leaves the prompt as it is moves none."""
    moves: list[PromptMove] = []
    last: dict[str, str] = {}
    for event in audit_events(store, case):
        if (alias := ALIASES.get(event.action)) is None:
            continue
        folder = release_folder(state, case, event.subject)
        known = (folder / MANIFEST).is_file()
        label = released_prompt(folder).label if known else "?"
        if known and last.get(alias) == label:
            continue
        last[alias] = label
        sealed = read_manifest(folder)["sealed"]["verdict"] if known else {}
        verdict = f"verdict {sealed['digest'][:12]}: {sealed['decision']}" if sealed else "verdict unknown"
        reason = str(event.details.get("reason", ""))
        evidence = "; ".join(filter(None, (verdict, reason)))
        moves.append(
            PromptMove(
                at=event.at, actor=event.actor, alias=alias, prompt=label, release=event.subject, evidence=evidence
            )
        )
    return moves[::-1]
