"""`driftline show --json` names the metrics of a release beside those of what it is compared with."""

from __future__ import annotations

from cli.show import ON_DOCUMENTS, measured


def test_arms_have_the_names_of_metrics_each_with_its_count():
    """What does not apply to an arm is null: without passages there is no ranking."""
    recorded = {
        "overall": {"recall_at_5": 0.8, "required_facts_recall": 0.5, "n": 237},
        "baselines": {
            "prompt_only": {"required_facts_recall": 0.1, "n": 60},
            "retrieval": {"recall_at_5": 0.7, "n": 60},
        },
        "retrieval": {name: {"recall_at_5": 0.8, "n": 177} for name in ("words", "vectors", "hybrid")},
        "constrained": {},
        "counts": {"served": {"recall_at_5": 177.0}, "prompt_only": {"required_facts_recall": 66.0}},
        "intervals": {"served": {"recall_at_5": [0.75, 0.86]}},
    }
    shown = measured(recorded)
    for side in (shown["metrics"], *shown["baselines"].values()):
        assert {*ON_DOCUMENTS, "n"} <= set(side)
    assert shown["metrics"]["counts"] == {"recall_at_5": 177.0}
    assert shown["metrics"]["intervals"] == {"recall_at_5": [0.75, 0.86]}
    prompt_only = shown["baselines"]["prompt_only"]
    assert (prompt_only["recall_at_5"], prompt_only["counts"]) == (None, {"required_facts_recall": 66.0})
    assert shown["retrieval"]["hybrid"]["recall_at_5"] == 0.8
    assert "constrained" not in shown


def test_a_table_has_only_its_own_metrics():
    shown = measured({"overall": {"auc": 0.7}, "baselines": {"base_rate": {"auc": 0.5}}, "by_slice": {}})
    assert shown == {"metrics": {"auc": 0.7}, "baselines": {"base_rate": {"auc": 0.5}}}
