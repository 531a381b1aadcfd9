"""What the EU AI Act, NIST's AI RMF and ISO/IEC 42001 ask for, and the stored evidence for each; the rest is missing.

Written by hand from the articles of Regulation (EU) 2024/1689, from NIST AI 100-1 and from Annex A of ISO/IEC
42001:2023, in our words. It is a map to evidence, not legal advice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from tasks.core.config import Result
from tasks.core.display import escape_markdown
from tasks.govern.evidence import Evidence, missed_candidates

Framework: TypeAlias = Literal["eu-ai-act", "nist-ai-rmf", "iso-42001"]
Finding: TypeAlias = tuple[str, str]  # what exists, what is missing; both as sentences, empty: nothing


class Requirement(Result):
    """One requirement with what is stored for it."""

    article: str
    requires: str
    evidence: str
    missing: str

    @property
    def status(self) -> str:
        if not self.evidence:
            return "missing"
        return "partly" if self.missing else "evidence"


def risks(e: Evidence) -> Finding:
    selftest = e.latest("gates.selftest")
    exists = f"verdict {e.sealed['verdict']['decision']} of {len(e.sealed['verdict']['criteria'])} criteria"
    if selftest:
        tested, missed = selftest.details["caught"], missed_candidates(selftest)
        exists += f"; {len(tested) - len(missed)} of {len(tested)} known-bad candidates refused (record {selftest.id})"
        lacks = f"a gate that refuses: {', '.join(missed)}; " if missed else ""
    else:
        lacks = "the gates were not tested with known-bad candidates: driftline gates selftest; "
    return exists, f"{lacks}an analysis of the risks to health, safety and rights, by a person"


def data(e: Evidence) -> Finding:
    checked = e.latest("data.validate")
    sources = checked.details["sources"].values() if checked else ()
    exists = f"snapshot {e.sealed['data'][:12]}"
    if checked:
        count = sum(source["expectations"] for source in sources)
        exists += f", validated by {count} expectations (record {checked.id})"
    lacks = [] if checked else ["an audit record of the validation"]
    return exists, "; ".join([*lacks, "the origin of the data and why they suit the purpose, by a person"])


def bias(e: Evidence) -> Finding:
    tables = e.recorded.get("metrics", {}).get("fairness", {})
    if not tables:
        return "", "no groups were compared: evaluate.fairness"
    gates = [each for each in e.sealed["verdict"]["criteria"] if each["name"].startswith("fairness_")]
    small = [each for each in gates if each["name"] == "fairness_small_groups"]
    lacks = "some groups are too small to judge: see the model card" if small else ""
    return f"rates by {', '.join(tables)} with intervals; {len(gates) - len(small)} gates on their differences", lacks


def documents(e: Evidence) -> Finding:
    return f"model card of release {e.digest[:12]}, written from stored evidence", (
        "the intended purpose, the provider and the instructions for use beyond the card, by a person"
    )


def records(e: Evidence) -> Finding:
    if e.tampering:
        return "", f"the audit log was changed: {e.tampering}"
    lacks = "" if e.anchored else "heads of the log are not anchored outside the database: driftline audit anchor"
    return f"{e.records:,} chained audit records, intact; {e.requests:,} answers with their release", lacks


def transparency(e: Evidence) -> Finding:
    return "each answer names its release; driftline why explains it by its request id", (
        "that people are informed that they deal with the system: a matter of the application"
    )


def oversight(e: Evidence) -> Finding:
    approved = e.latest("approval.approve")
    if approved:
        return f"{approved.by} approved (record {approved.id})", ""
    if e.approval_required:
        return "a person must approve each release", "no approval is recorded"
    return "a person can roll back, and reject a release", "no release needs a person's approval: approval in the case"


def accuracy(e: Evidence) -> Finding:
    overall = e.recorded.get("metrics", {}).get("overall", {})
    named = ", ".join(f"{name} {value:.3f}" for name, value in list(overall.items())[1:5])
    return f"{named}; the verdict can be computed again from its scores", ""


def security(e: Evidence) -> Finding:
    return "a release with one changed byte is not served; keys, budgets and private sockets protect it", (
        "a penetration test by others"
    )


def monitoring(e: Evidence) -> Finding:
    if not e.monitored:
        return "monitoring is configured", "no monitoring has run yet: driftline monitor"
    return f"latest decision of monitoring: {e.monitored}", ""


def incidents(e: Evidence) -> Finding:
    back = e.latest("release.rollback")
    exists = f"a rollback is recorded (record {back.id})" if back else "rollbacks are recorded; there was none"
    return exists, "a procedure to report serious incidents to the authority"


def nothing(lacks: str) -> Callable[[Evidence], Finding]:
    """Of what no platform can hold evidence."""
    return lambda _: ("", lacks)


Rule: TypeAlias = tuple[str, str, Callable[[Evidence], Finding]]
EU_AI_ACT: tuple[Rule, ...] = (
    ("Article 9", "Risk management system", risks),
    ("Article 10(2)-(4)", "Data governance: suitable, representative, checked data", data),
    ("Article 10(2)(f)-(g)", "Examination of possible biases and measures against them", bias),
    ("Article 11, Annex IV", "Technical documentation", documents),
    ("Article 12", "Record-keeping: events are logged automatically", records),
    ("Article 13", "Transparency and information to deployers", transparency),
    ("Article 14", "Human oversight", oversight),
    ("Article 15", "Accuracy and robustness", accuracy),
    ("Article 15(5)", "Cybersecurity", security),
    ("Article 17", "Quality management system", nothing("the provider's quality management system")),
    ("Article 26", "Duties of deployers", nothing("the deployer's organisation: training, use as instructed")),
    (
        "Article 27",
        "Fundamental rights impact assessment",
        nothing("the assessment, which Annex III(5)(b) needs"),
    ),
    ("Article 43", "Conformity assessment", nothing("the assessment, internal control under Annex VI")),
    ("Article 49", "Registration in the EU database", nothing("the registration")),
    ("Article 72", "Post-market monitoring", monitoring),
    ("Article 73", "Reporting of serious incidents", incidents),
)
NIST_AI_RMF: tuple[Rule, ...] = (
    ("GOVERN 1", "Policies and processes are in place", nothing("the organisation's policies")),
    ("GOVERN 2", "Accountability: who decides", oversight),
    ("MAP 1", "Context and purpose are understood", documents),
    ("MAP 4", "Risks of data and of third parties", data),
    ("MEASURE 1", "Methods and metrics are identified", risks),
    ("MEASURE 2.5", "Validity and reliability are shown", accuracy),
    ("MEASURE 2.7", "Security and resilience", security),
    ("MEASURE 2.8", "Transparency and accountability", records),
    ("MEASURE 2.9", "Explanation of outputs", transparency),
    ("MEASURE 2.11", "Fairness and bias", bias),
    ("MANAGE 2.4", "Mechanisms to supersede or deactivate", incidents),
    ("MANAGE 4.1", "Monitoring after deployment", monitoring),
)
ISO_42001: tuple[Rule, ...] = (
    ("A.2", "AI policy", nothing("the organisation's policy")),
    ("A.3", "Roles and responsibilities", oversight),
    ("A.5", "Assessment of impacts", nothing("the impact assessment")),
    ("A.6.2.4", "Verification and validation", risks),
    ("A.6.2.6", "Operation and monitoring", monitoring),
    ("A.6.2.7", "Technical documentation", documents),
    ("A.6.2.8", "Recording of event logs", records),
    ("A.7.3-A.7.5", "Acquisition, quality and provenance of data", data),
    ("A.7.4", "Data quality, bias included", bias),
    ("A.8.2", "Information for users", transparency),
    ("A.8.4", "Communication of incidents", incidents),
    ("A.9.3", "Objectives of responsible use: accuracy", accuracy),
    ("A.10", "Suppliers and third parties", nothing("contracts with suppliers")),
)
FRAMEWORKS: Mapping[str, tuple[str, tuple[Rule, ...]]] = {
    "eu-ai-act": ("EU AI Act, Regulation (EU) 2024/1689", EU_AI_ACT),
    "nist-ai-rmf": ("NIST AI Risk Management Framework 1.0", NIST_AI_RMF),
    "iso-42001": ("ISO/IEC 42001:2023, Annex A", ISO_42001),
}


def requirements(framework: Framework, evidence: Evidence) -> list[Requirement]:
    """Each requirement of a framework with the evidence that exists and what is missing."""
    found = []
    for article, requires, check in FRAMEWORKS[framework][1]:
        exists, lacks = check(evidence)
        found.append(Requirement(article=article, requires=requires, evidence=exists, missing=lacks))
    return found


def report(framework: Framework, evidence: Evidence) -> str:
    """The report as Markdown."""
    rows = requirements(framework, evidence)
    counts = {status: sum(row.status == status for row in rows) for status in ("evidence", "partly", "missing")}
    lines = [
        f"# {evidence.case}: {FRAMEWORKS[framework][0]}",
        "",
        f"Release {evidence.digest}. Of {len(rows)} requirements, {counts['evidence']} have evidence, "
        f"{counts['partly']} have some, and for {counts['missing']} there is none. This maps requirements to stored "
        "evidence; whether the evidence suffices is for a person to decide.",
        "",
        "| | requires | status | evidence | missing |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = row.article, row.requires, row.status, row.evidence or "-", row.missing or "-"
        lines.append(f"| {' | '.join(escape_markdown(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"
