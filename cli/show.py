"""`driftline show`, `vllm` and `snapshot pin`: what a release consists of and how to serve it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from rich.text import Text

from flows.case import load_case
from tasks.core.console import PlainTable, console, styled
from tasks.core.display import escape_terminal
from tasks.core.settings import settings
from tasks.evaluate.report import compared, sides_of

if TYPE_CHECKING:
    from tasks.release.results import Release

ARMS = ("base", "prompt_only", "retrieval", "extractive", "tuned")  # of questions on documents
ON_DOCUMENTS = (  # null for an arm that they don't apply to: without passages there is no ranking
    "recall_at_5",
    "mrr",
    "ndcg_at_10",
    "citation_precision",
    "required_facts_recall",
    "groundedness",
    "abstention_recall",
    "wrong_abstention_rate",
)
SELFTEST = "selftest.json"  # in a release whose gates were tested
COMPARISONS = ("constrained", "unquantized")  # a language release, answered in other ways


def show_release(case: str, reference: str | None, as_json: bool) -> None:
    """Print the manifest, metrics and verdict of a release; the champion when none is named."""
    manifest = read(case, reference)
    sealed, recorded = manifest["sealed"], manifest["recorded"]
    report = {
        "release": {"digest": manifest["digest"], **sealed, "recorded": recorded},
        **measured(recorded["metrics"]),
        "verdict": {
            "decision": sealed["verdict"]["decision"],
            "champion": sealed["verdict"]["champion"],
            "criteria": [
                {
                    **criterion,
                    "observed": recorded["observed"].get(criterion["name"], {}).get("value"),
                    "note": recorded["observed"].get(criterion["name"], {}).get("note", ""),
                }
                for criterion in sealed["verdict"]["criteria"]
            ],
        },
    }
    if as_json:
        print(escape_terminal(json.dumps(report, indent=2, ensure_ascii=False)))
        return
    origin = f", as of {sealed['as_of']}, created {recorded['created_at']}"
    console.print(Text.assemble(styled(f"{case} {manifest['digest'][:12]}", "bold"), origin))
    facts = PlainTable("sealed", "")
    names = ("commit", "lock", "config", "data", "definitions", "weights", "imported")
    for name in [name for name in names if sealed.get(name)]:
        facts.add_row(
            name, str(sealed[name])[:40] + (" (with changes)" if name == "commit" and sealed["dirty"] else "")
        )
    if upstream := sealed.get("base", {}).get("upstream"):
        facts.add_row("model", escape_terminal(f"{upstream['model']} at {upstream['address']}"))
        fingerprints = ", ".join(upstream["fingerprints"]) or "none"
        facts.add_row("fingerprints", escape_terminal(fingerprints))
        facts.add_row("not pinned", sealed["base"]["not_pinned"])
    if classes := sealed.get("target", {}).get("classes"):
        facts.add_row("classes", ", ".join(map(str, classes)))
    console.print(facts)
    if recorded.get("data"):
        console.print(escape_terminal(recorded["data"]))
    if sides := sides_of(recorded["metrics"]):
        beside = PlainTable("metric", *sides)
        for row in compared(recorded["metrics"]):
            beside.add_row(*row)
        console.print(beside)
    elif "unquantized" in recorded["metrics"]:
        console.print(metrics_table(recorded["metrics"]))
    else:
        overall = recorded["metrics"]["overall"]
        console.print("metrics: " + ", ".join(f"{name} {value:.4g}" for name, value in overall.items()))
    criteria = PlainTable("criterion", "observed", "required", "")
    for line in report["verdict"]["criteria"]:
        observed = "-" if line["observed"] is None else f"{line['observed']:.4g}"
        criteria.add_row(line["name"], observed, line["required"], _outcome(line))
    if SELFTEST in sealed["files"]:
        console.print(f"gates: all known-bad candidates refused, {SELFTEST} of the release names by which gate")
    console.print(f"verdict: {report['verdict']['decision']}")
    console.print(criteria)


def measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a release, of what it is compared with, and of each method of search."""

    always = dict.fromkeys(ON_DOCUMENTS) if "retrieval" in metrics else {}

    def side(variant: str, values: dict[str, float]) -> dict[str, Any]:
        """With the answers, fields or questions behind each metric, and its 95 % interval."""
        more = {name: metrics.get(name, {}).get(variant) for name in ("counts", "intervals")}
        return {**always, **values, **{name: known for name, known in more.items() if known}}

    report: dict[str, Any] = {"metrics": side("served", metrics["overall"])}
    if "baselines" in metrics:
        report["baselines"] = {name: side(name, values) for name, values in metrics["baselines"].items()}
    report |= {name: side(name, metrics[name]) for name in COMPARISONS if metrics.get(name)}
    return report | ({"retrieval": metrics["retrieval"]} if "retrieval" in metrics else {})


def _outcome(criterion: dict[str, Any]) -> str | Text:
    if waiver := criterion.get("waiver"):
        return styled(f"waived: {waiver}", "yellow")
    if criterion["passed"]:
        return "passed"
    if criterion.get("blocking", True):
        return styled("failed", "red")
    return styled(f"warning: {criterion['note']}" if criterion["note"] else "warning", "yellow")


def metrics_table(metrics: dict[str, Any]) -> PlainTable:
    """A table of the tuned model's metrics beside those of the base model and of other serving modes."""
    sides = {
        "base, zero-shot": metrics["baselines"].get("zero_shot"),
        "base, few-shot": metrics["baselines"].get("few_shot"),
        **{name.replace("_", " "): metrics["baselines"].get(name) for name in ARMS},
        "tuned, unquantised" if "tuned" in metrics["baselines"] else "tuned": metrics["unquantized"],
        "tuned, as served" if metrics["unquantized"] else "as served": metrics["overall"],
        "by the schema": metrics["constrained"],
    }
    sides = {name: side for name, side in sides.items() if side}
    table = PlainTable("metric", *sides)
    for name in metrics["overall"]:
        table.add_row(name, *("-" if name not in side else f"{side[name]:.4g}" for side in sides.values()))
    return table


def show_vllm(tags: list[str]) -> None:
    """Print the command that serves these releases from one vLLM server."""
    from tasks.release.language import vllm_command

    parts = [tag.partition(":") for tag in tags]
    print(shlex.join(vllm_command([find_release(case, digest or None).folder for case, _, digest in parts])))


def pin_snapshot(case: str) -> None:
    """Write the champion's snapshot pointer under data/."""
    from tasks.data.snapshots import pin

    path = pin(case, read(case, None)["recorded"]["snapshot"], settings().data)
    console.print(f"wrote {path}\ncommit this file; then `dvc pull {path.name}` in its folder restores the snapshot")


def read(case: str, reference: str | None) -> dict[str, Any]:
    """A release's manifest.

    Raises: CaseError, InputError when there is no such release.
    """
    from tasks.release.seal import verify

    return verify(find_release(case, reference).folder)


def find_release(case: str, reference: str | None) -> Release:
    """The champion, or the release that a reference names.

    Raises: CaseError, InputError when there is no such release.
    """
    from tasks.release.registry import require_champion, resolve_release

    load_case(case, settings().cases)
    config = settings()
    if reference is None:
        return require_champion(case, config.tracking, config.state)
    return resolve_release(config.tracking, config.state, case, reference)
