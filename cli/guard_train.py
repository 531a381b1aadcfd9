"""`driftline guard train`: train a classifier for guardrails by the ordinary chain."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import AsJson


def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the classifier: injection, harm or your own.")],
    as_json: AsJson = False,
) -> None:
    """Train, gate and release the classifier of the case guard-NAME, and fit its thresholds."""
    import json

    from cli.terminal import run_flow_with_progress
    from flows.case import load_case
    from tasks.core.console import PlainTable, console
    from tasks.core.settings import settings
    from tasks.guard.classifier import DEFAULT_RATE, load_classifier
    from tasks.guard.files import trained_folder
    from tasks.release.guard_classifier import PREFIX, export_classifier
    from tasks.release.registry import require_champion

    config, case = settings(), f"{PREFIX}{name}"
    load_case(case, config.cases)
    run_flow_with_progress("release", case, None, None)
    champion = require_champion(case, config.tracking, config.state)
    export_classifier(champion, config.state)
    classifier = load_classifier(trained_folder(config.state) / name)
    if as_json:
        print(json.dumps({"release": champion.digest, "thresholds": classifier.thresholds, **classifier.about}))
        return
    table = PlainTable("false alarms at most", "threshold", "caught of the hold-out")
    for rate, threshold in classifier.thresholds.items():
        table.add_row(f"{rate:.1%}", f"{threshold:.4f}", f"{classifier.about['caught'][str(rate)]:.1%}")
    console.print(table)
    console.print(
        f"rules use it by: {{check: classifier, model: {name}, action: refuse, false_alarm_rate: {DEFAULT_RATE}}}"
    )
