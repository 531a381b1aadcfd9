"""The model card of a release: Markdown in the form of Hugging Face, from stored evidence alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.core.display import escape_markdown
from tasks.evaluate.fairness import RATES
from tasks.govern.evidence import Decision, Evidence
from tasks.govern.limits import limits

LIBRARIES = {"tabular": "sklearn", "llm": "transformers"}
PIPELINES = {"classification": "tabular-classification", "regression": "tabular-regression"}


def model_card(evidence: Evidence) -> str:
    """Front matter, then a section for each kind of evidence; what does not exist is named as missing."""
    parts = [*_front(evidence), *_details(evidence), *_data(evidence), *_quality(evidence), *_fairness(evidence)]
    parts += [*_selftest(evidence), *_limits(evidence), *_decisions(evidence), *_cost(evidence)]
    return "\n".join(parts).rstrip() + "\n"


def _front(evidence: Evidence) -> Iterator[str]:
    """The metadata that hubs read; JSON texts are YAML, too."""
    sealed = evidence.sealed
    task = sealed.get("target", {}).get("task", "")
    overall = evidence.recorded.get("metrics", {}).get("overall", {})
    yield "---"
    yield f"library_name: {LIBRARIES[sealed['kind']]}"
    yield f"pipeline_tag: {PIPELINES.get(task, 'text-generation')}"
    yield f"tags: {json.dumps(['driftline', evidence.case])}"
    yield "model-index:"
    yield f"- name: {json.dumps(f'{evidence.case}:{evidence.digest[:12]}')}"
    yield "  results:"
    yield f"  - task: {{type: {PIPELINES.get(task, 'text-generation')}}}"
    yield f"    dataset: {{type: {json.dumps(evidence.case)}, name: hold-out, revision: {json.dumps(sealed['data'])}}}"
    yield "    metrics:"
    for name, value in overall.items():
        yield f"    - {{type: {name}, value: {value!r}}}"
    yield "---"


def _details(evidence: Evidence) -> Iterator[str]:
    sealed, recorded = evidence.sealed, evidence.recorded
    yield f"# {evidence.case} {evidence.digest[:12]}"
    yield ""
    yield escape_markdown(evidence.description) or "The case has no description."
    yield ""
    yield "## Model details"
    yield "| | |"
    yield "|---|---|"
    facts = {
        "release": evidence.digest,
        "kind": sealed["kind"],
        "as of": sealed["as_of"],
        "created": recorded.get("created_at", "unknown"),
        "weights": sealed["weights"],
        "code": f"commit {sealed['commit']}" + (", with uncommitted changes" if sealed["dirty"] else ""),
        "configuration": sealed["config"],
        "packages": ", ".join(f"{name} {version}" for name, version in recorded.get("versions", {}).items()),
        "training run": recorded["run_id"],
    }
    if target := sealed.get("target"):
        facts |= {"predicts": f"{target['column']} ({target['task']})"}
        facts |= {"inputs": ", ".join(column["name"] for column in sealed.get("columns", []))}
    if base := sealed.get("base"):
        facts |= {
            "base model": base["source"],
            "prompt": f"{sealed['prompt']['name']}@{sealed['prompt']['digest'][:12]}",
        }
    for name, value in facts.items():
        yield f"| {name} | {escape_markdown(str(value))} |"
    yield ""


def _data(evidence: Evidence) -> Iterator[str]:
    yield "## Training data"
    yield f"Snapshot `{evidence.sealed['data']}`. {escape_markdown(evidence.recorded.get('data', ''))}"
    found = [d for d in evidence.decisions if d.action == "data.validate"]
    checked = next((d for d in reversed(found) if d.details.get("sources")), None)
    if checked is None:
        yield ""
        yield "Missing: no audit record of the validation of this snapshot."
    else:
        yield ""
        yield "| source | rows | quarantined | expectations | warnings |"
        yield "|---|---|---|---|---|"
        for name, source in checked.details["sources"].items():
            warnings = escape_markdown("; ".join(source["warnings"])) or "none"
            yield f"| {name} | {source['rows']:,} | {source['quarantined']:,} | {source['expectations']} | {warnings} |"
    yield ""


def _quality(evidence: Evidence) -> Iterator[str]:
    metrics = evidence.recorded.get("metrics", {})
    yield "## Evaluation"
    yield f"The verdict is **{evidence.sealed['verdict']['decision']}**."
    yield ""
    yield "| criterion | observed | required | |"
    yield "|---|---|---|---|"
    observed = evidence.recorded.get("observed", {})
    for each in evidence.sealed["verdict"]["criteria"]:
        value = observed.get(each["name"], {}).get("value")
        outcome = "waived" if each.get("waiver") else "passed" if each["passed"] else "warning"
        shown = "-" if value is None else f"{value:.4g}"
        yield f"| {escape_markdown(each['name'])} | {shown} | {escape_markdown(each['required'])} | {outcome} |"
    yield ""
    for column, values in metrics.get("by_slice", {}).items():
        names = [name for name in next(iter(values.values()), {}) if name != "rows"][:5]
        yield f"| {column} | rows | {' | '.join(names)} |"
        yield "|---" * (len(names) + 2) + "|"
        for value, each in values.items():
            cells = [f"{each[name]:.3f}" if name in each else "-" for name in names]
            yield f"| {escape_markdown(value)} | {each['rows']:,} | {' | '.join(cells)} |"
        yield ""


def _fairness(evidence: Evidence) -> Iterator[str]:
    yield "## Fairness"
    tables: Mapping[str, Any] = evidence.recorded.get("metrics", {}).get("fairness", {})
    if not tables:
        yield "Missing: no sensitive columns are declared under evaluate.fairness, so no groups were compared."
        yield ""
        return
    yield "Rates by group with bootstrap intervals. Of a group without rates nothing is known: it has too few rows."
    yield ""
    for column, groups in tables.items():
        names = [name for name in RATES if any(name in each for each in groups.values())]
        yield f"| {column} | rows | {' | '.join(name.replace('_', ' ') for name in names)} |"
        yield "|---" * (len(names) + 2) + "|"
        for group, each in groups.items():
            cells = [_interval(each, name) for name in names]
            yield f"| {escape_markdown(group)} | {each['rows']:,} | {' | '.join(cells)} |"
        yield ""


def _interval(each: Mapping[str, float], name: str) -> str:
    if name not in each:
        return "unknown"
    return f"{each[name]:.3f} ({each[f'{name}_low']:.3f} to {each[f'{name}_high']:.3f})"


def _selftest(evidence: Evidence) -> Iterator[str]:
    """Which gate refused which known-bad candidate; without a test, the limits say that it is missing."""
    tested = evidence.latest("gates.selftest")
    if tested is None:
        return
    yield "## Test of the gates"
    yield f"Known-bad candidates, judged by the gates of the case (audit record {tested.id})."
    yield ""
    yield "| known-bad candidate | refused by |"
    yield "|---|---|"
    for name, gates in tested.details["caught"].items():
        yield f"| {escape_markdown(name)} | {escape_markdown(', '.join(gates)) or 'nothing: it would be released'} |"
    yield ""


def _limits(evidence: Evidence) -> Iterator[str]:
    yield "## Limits"
    yield from (f"- {escape_markdown(sentence)}." for sentence in limits(evidence))
    yield ""


def _decisions(evidence: Evidence) -> Iterator[str]:
    yield "## Decisions"
    yield f"From the audit log ({evidence.records:,} records, head `{evidence.head}`)."
    yield ""
    yield "| record | at (UTC) | by | a person? | action | reason |"
    yield "|---|---|---|---|---|---|"
    for each in [each for each in evidence.decisions if not each.action.startswith(("run.", "data."))]:
        who, reason = escape_markdown(each.by), escape_markdown(str(each.details.get("reason", "")))
        yield f"| {each.id} | {each.at} | {who} | {_is_person(each)} | {each.action} | {reason} |"
    yield ""


def _is_person(decision: Decision) -> str:
    return {"person": "yes", "unknown": "not recorded"}.get(decision.actor_kind, "no")


def _cost(evidence: Evidence) -> Iterator[str]:
    yield "## Cost and energy"
    if evidence.training_seconds is None:
        yield "Missing: the training time was not recorded."
    else:
        yield f"Training took {evidence.training_seconds:,.0f} s and cost {evidence.training_price or 0:.4f}."
    measured = f"{evidence.energy_wh:,.1f} Wh" if evidence.energy_wh is not None else "not measured on this machine"
    yield f"Energy of the training: {measured}. Answers so far: {evidence.requests:,}."
