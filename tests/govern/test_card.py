"""Promise: a card and a report state stored evidence and nothing else, and name what is missing."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml

from tasks.govern.card import model_card
from tasks.govern.evidence import Decision, Evidence
from tasks.govern.frameworks import FRAMEWORKS, Framework, report, requirements

RATES = {"selection_rate": 0.1, "selection_rate_low": 0.08, "selection_rate_high": 0.12}
VALIDATED = {"clients": {"rows": 9000, "quarantined": 2, "expectations": 17, "warnings": ["few | rows"]}}


def decision(number: int, action: str, kind: str = "process", **details: Any) -> Decision:
    return Decision(id=number, at="2024-06-01 10:00:00", by="anna", actor_kind=kind, action=action, details=details)


def evidence_of(**changes: Any) -> Evidence:
    criteria = [
        {"name": "auc", "required": ">= 0.7", "passed": True, "observed": 0.8},
        {"name": "leak: age", "required": "< 0.98 auc", "passed": True, "waiver": "known before", "observed": 1.0},
        {"name": "fairness_small_groups", "required": ">= 100", "passed": False, "blocking": False, "observed": 4.0},
    ]
    sealed = {
        "case": "shop",
        "kind": "tabular",
        "as_of": "2024-06-01",
        "commit": "c" * 40,
        "dirty": False,
        "config": "2" * 64,
        "data": "da.dir",
        "weights": "a" * 64,
        "target": {"column": "late", "task": "classification"},
        "columns": [{"name": "age"}],
        "verdict": {"decision": "promote", "digest": "e" * 64, "champion": None, "criteria": criteria},
    }
    metrics = {
        "overall": {"rows": 3000, "auc": 0.8},
        "by_slice": {"sex": {"female": {"rows": 2000, "auc": 0.81}, "male": {"rows": 1000, "auc": 0.74}}},
        "fairness": {"sex": {"female": {"rows": 2000, **RATES}, "other": {"rows": 4}}},
    }
    recorded = {
        "run_id": "run-1",
        "versions": {"skops": "0.16"},
        "metrics": metrics,
        "data": "trained on 9 rows",
        "observed": {"fairness_small_groups": {"value": 4.0, "note": "nothing is known of sex: other (4 rows)"}},
    }
    manifest = {"digest": "d" * 64, "sealed": sealed, "recorded": recorded}
    values: dict[str, Any] = {"case": "shop", "description": "Will it be late?", "manifest": manifest, "records": 9}
    values |= {
        "decisions": (
            decision(1, "data.validate", sources=VALIDATED),
            decision(2, "release.promote", "person", reason="released"),
        )
    }
    return Evidence(**values | changes)


def test_a_card_begins_with_the_metadata_of_hubs() -> None:
    """As Hugging Face reads it."""
    front = yaml.safe_load(model_card(evidence_of()).split("---")[1])
    assert front["pipeline_tag"] == "tabular-classification"
    (result,) = front["model-index"][0]["results"]
    assert {"type": "auc", "value": 0.8} in result["metrics"]
    assert result["dataset"]["revision"] == "da.dir"


def test_a_card_shows_waivers_small_groups_and_worst_slices() -> None:
    text = model_card(evidence_of())
    assert "Waived: leak: age, because known before." in text
    assert "| other | 4 | unknown |" in text
    assert "0.100 (0.080 to 0.120)" in text
    assert "Worst slices by auc: sex male (1,000 rows): 0.740" in text
    assert "nothing is known of sex: other (4 rows)" in text
    assert "few \\| rows" in text
    assert "| 2 | 2024-06-01 10:00:00 | anna | yes | release.promote | released |" in text


def test_a_card_names_what_is_missing() -> None:
    evidence = evidence_of(decisions=())
    del evidence.recorded["metrics"]["fairness"]
    text = model_card(evidence)
    assert text.count("Missing: ") == 4  # validation, fairness, self-test, training time


@pytest.mark.parametrize("framework", get_args(Framework))
def test_each_requirement_has_evidence_or_says_what_is_missing(framework: Framework) -> None:
    rows = requirements(framework, evidence_of(decisions=()))
    assert len(rows) == len({(row.article, row.requires) for row in rows}) == len(FRAMEWORKS[framework][1])
    assert all(row.evidence or row.missing for row in rows)
    assert any(row.status == "missing" for row in rows)


def status(article: str, **changes: Any) -> tuple[str, str]:
    rows = requirements("eu-ai-act", evidence_of(**changes))
    row = next(row for row in rows if row.article == article)
    return row.status, row.missing


def test_a_report_claims_nothing_that_is_not_stored() -> None:
    """Oversight, records and monitoring follow from the audit log."""
    assert status("Article 14", approval_required=True) == ("partly", "no approval is recorded")
    assert status("Article 14", decisions=(decision(3, "approval.approve", "person"),)) == ("evidence", "")
    assert status("Article 12", tampering="record 3: edited")[0] == "missing"
    assert status("Article 12", anchored=True) == ("evidence", "")
    assert status("Article 72")[0] == "partly"
    assert status("Article 72", monitored="ignore (record 9)") == ("evidence", "")
    assert status("Article 43")[0] == "missing"


def test_a_report_says_what_it_is_not() -> None:
    text = report("eu-ai-act", evidence_of())
    assert "is for a person to decide" in text
    assert text.count("\n| Article") == len(FRAMEWORKS["eu-ai-act"][1])


def test_a_bad_candidate_that_gets_through_is_named() -> None:
    """Neither a card nor a report counts it among the refused."""
    tested = decision(3, "gates.selftest", caught={"shuffled labels": ["auc"], "slow": []})
    evidence = evidence_of(decisions=(tested,))
    card = model_card(evidence)
    assert "Warning: the gates would release known-bad candidates: slow." in card
    assert "| shuffled labels | auc |" in card
    assert "| slow | nothing: it would be released |" in card
    text = report("eu-ai-act", evidence)
    assert "1 of 2 known-bad candidates refused (record 3)" in text
    assert "a gate that refuses: slow" in text
