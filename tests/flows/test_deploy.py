"""Deployments: what prefect.yaml declares follows from the case folders, and channels are told apart."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from flows.case import case_names, load_case
from flows.deployed.alerts import channel
from flows.deployed.deploy import FLOWS, prefect_yaml
from tasks.core.errors import CaseError
from tasks.core.settings import ROOT
from tests.end_to_end.small import change_case, make_case

CASES = ROOT / "configs"


def declared(cases):
    return yaml.safe_load(prefect_yaml(cases))["deployments"]


def test_every_flow_of_every_case_is_declared_once():
    deployments = [(each["entrypoint"], each["name"]) for each in declared(CASES)]
    kinds = {case: load_case(case, CASES).kind for case in case_names(CASES)}
    flows = [(flow, case) for flow in FLOWS for case, kind in kinds.items() if flow != "backtest" or kind == "tabular"]
    expected = [(f"flows/{flow}.py:{flow}", case) for flow, case in flows]
    assert sorted(deployments) == sorted([*expected, ("flows/push.py:push", "push")])


def test_a_case_says_when_its_flows_start(tmp_path):
    """Only prepare and monitor have a schedule; retraining follows the decision, one at a time."""
    folder = make_case(tmp_path)
    change_case(folder, schedule={"prepare": "0 6 * * *", "monitor": "20 * * * *", "timezone": "Europe/Vienna"})
    by_flow = {each["entrypoint"].rpartition(":")[2]: each for each in declared(tmp_path)}
    when = {flow: each["schedules"] for flow, each in by_flow.items() if each.get("schedules")}
    assert when == {
        "prepare": [{"cron": "0 6 * * *", "timezone": "Europe/Vienna"}],
        "monitor": [{"cron": "20 * * * *", "timezone": "Europe/Vienna"}],
    }
    assert [flow for flow, each in by_flow.items() if each.get("triggers")] == ["retrain"]
    assert by_flow["retrain"]["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


@pytest.mark.parametrize(
    ("schedule", "says"),
    [({"monitor": "every hour"}, "not a cron expression"), ({"timezone": "Mars/Base"}, "unknown time zone")],
)
def test_a_wrong_schedule_is_refused_when_the_case_is_read(tmp_path, schedule, says):
    change_case(make_case(tmp_path), schedule=schedule)
    with pytest.raises(CaseError, match=says):
        load_case("diabetes", tmp_path)


def test_each_kind_of_channel_has_its_form():
    """A webhook gets subject and body, Slack's form one text; other URLs are Apprise's."""
    urls = "https://example.org/hook", "slack+https://example.org/hook", "mailto://user:secret@example.org"
    webhook, slack, mail = (cast(Any, channel(url)) for url in urls)
    assert set(webhook.json_data) == {"subject", "body"}
    assert set(slack.json_data) == {"text"}
    assert mail.url.get_secret_value().endswith("?format=text")


def test_an_unknown_channels_secret_stays_hidden():
    with pytest.raises(CaseError) as refused:
        channel("carrier-pigeon://user:secret@example.org")
    assert "carrier-pigeon://..." in str(refused.value)
    assert "secret" not in str(refused.value)
