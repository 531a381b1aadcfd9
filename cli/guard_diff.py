"""`driftline guard diff`: the rules of a case as they are configured, beside those of its champion."""

from __future__ import annotations

from dataclasses import asdict

from cli.options import AsJson, CaseName, Profile


def diff(case: CaseName, profile: Profile = None, as_json: AsJson = False) -> None:
    """Show how the rules of a case differ from those of its champion: what the next release changes."""
    import json

    from flows.case import load_case
    from tasks.core.console import console
    from tasks.core.display import escape_terminal
    from tasks.core.settings import settings
    from tasks.guard.diff import changed_rules
    from tasks.guard.files import read_rules
    from tasks.release.registry import require_champion

    config = settings()
    configured = load_case(case, config.cases, profile).guardrails
    champion = require_champion(case, config.tracking, config.state)
    changes = changed_rules(read_rules(champion.folder), configured)
    if as_json:
        print(json.dumps([asdict(change) for change in changes], indent=2, ensure_ascii=False))
        return
    for change in changes:
        console.print(escape_terminal(str(change)), markup=False)
    if not changes:
        console.print(f"The rules of {case} are those of its champion {champion.digest[:12]}.")
