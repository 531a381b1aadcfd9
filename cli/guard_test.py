"""`driftline guard test`: the rules of a case, tried on known-bad and known-good inputs."""

from __future__ import annotations

from cli.options import AsJson, CaseName, Profile


def run_test(case: CaseName, profile: Profile = None, as_json: AsJson = False) -> None:
    """Try each rule on known-bad and known-good inputs, plain and disguised. Exit code 3 when one misses a bound."""
    import json

    from cli.guard import case_guardrails
    from tasks.core.console import console
    from tasks.core.errors import GateFailed
    from tasks.guard.trial import try_rules

    trials = []
    for trial in try_rules(*case_guardrails(case, profile)):
        trials.append(trial)
        if as_json:
            continue
        console.print(f"{trial.stage}.{trial.rule}, on {trial.inputs}")
        console.print(f"  caught        {trial.caught}")
        console.print(f"  false alarms  {trial.false_alarms}")
        console.print(f"  disguised     {trial.mutated} of those that were caught plain: {trial.lost:.0%} lost")
        if trial.streamed.of:
            console.print(f"  streamed      {trial.streamed} cut at every byte pass what the whole passes")
        for name, share in sorted(trial.mutations.items(), key=lambda item: item[1].value):
            if share.found < share.of:
                console.print(f"    {name:<20} {share}")
        for name, texts in (("missed", trial.missed), ("wrongly found", trial.alarmed)):
            for text in texts[:3]:
                console.print(f"  {name}: {' '.join(text.split())[:100]}", markup=False)
    if as_json:
        rows = [
            {
                **trial.model_dump(mode="json"),
                "caught_interval": trial.caught.interval,
                "problems": trial.problems,
                "lost": trial.lost,
            }
            | {"false_alarms_interval": trial.false_alarms.interval}
            for trial in trials
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    if problems := [problem for trial in trials for problem in trial.problems]:
        raise GateFailed(
            f"Rules of {case} miss their bounds.",
            found="; ".join(problems),
            todo="Correct the rules or their bounds in case.yaml, or train the classifier again.",
        )
