"""`driftline verdict`: the stored verdict of a release or of a candidate, and the same computed again."""

from __future__ import annotations

from pathlib import Path

from tasks.core.display import escape_terminal
from tasks.core.errors import DriftlineError, InputError
from tasks.core.settings import settings
from tasks.evaluate.results import Verdict

STORED = "verdict.json"


def show_verdict(reference: str, *, recompute: bool, as_json: bool) -> None:
    """Raises: DriftlineError when the recomputed verdict differs; InputError when there is no such verdict."""
    case, _, digest = reference.partition(":")
    folder, stored = find_verdict(case, digest)
    if not recompute:
        from tasks.evaluate.report import lines

        print(escape_terminal(stored.model_dump_json(indent=2) if as_json else lines(stored)))
        return
    from tasks.evaluate.recompute import recompute as compute

    found = compute(folder, stored.digest)
    if as_json:
        print(escape_terminal(found.model_dump_json(indent=2)))
    if not found.is_same:
        raise DriftlineError(
            "The stored verdict does not follow from the stored scores.",
            where=str(folder),
            found=f"{found.decision}, digest {found.digest[:12]}; different: {', '.join(found.different) or 'none'}",
            allowed=f"{stored.decision}, digest {stored.digest[:12]}",
            todo="If Driftline was updated since, use the version of its commit: driftline show names it.",
        )
    if not as_json:
        print(f"verdict: {found.decision}, digest {found.digest}: the same, bit for bit")
        print(f"  computed again from the scores: {', '.join(found.recomputed)}")
        print(f"  taken as recorded, since they need more than scores: {', '.join(found.taken)}")


def find_verdict(case: str, digest: str) -> tuple[Path, Verdict]:
    """The folder of a verdict with its scores: of the champion, or by a prefix of its own or of its release's digest.

    Raises: InputError.
    """
    from cli.show import find_release

    found = {}
    for path in sorted((settings().state / "verdicts" / case).glob(f"*/{STORED}")):
        verdict = Verdict.model_validate_json(path.read_bytes())
        found[verdict.digest] = path.parent, verdict
    if digest and (matching := [each for name, each in found.items() if name.startswith(digest)]):
        return matching[0]
    release = find_release(case, digest or None)
    from tasks.release.seal import verify

    sealed = verify(release.folder)["sealed"]["verdict"]
    if sealed["digest"] not in found:
        raise InputError(
            "The verdict's folder is gone.",
            where=str(settings().state / "verdicts" / case),
            found=sealed["digest"][:12],
            allowed=", ".join(name[:12] for name in found) or "none",
            todo=f"Run the case again: driftline run {case}",
        )
    return release.folder, found[sealed["digest"]][1]
