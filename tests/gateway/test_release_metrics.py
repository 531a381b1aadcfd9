"""Promise: the gateway relays the Prometheus metrics of all releases, whose sockets only it can reach."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from services.gateway.release_metrics import merge
from tests.gateway.stack import gateway_client
from tests.waiting import wait_for

REQUESTS = "bentoml_service_request_total"


def test_metrics_of_releases_come_through_the_gateway(settings, table, other):
    """With the release that each sample is of; all of them as one page, which Prometheus can read."""
    row = json.loads((table.folder / "golden.json").read_text())[0]["features"]
    with gateway_client(settings) as http:
        assert http.post("/v1/predict/small", json={"rows": [row]}).is_success
        digests = {table.digest[:12], other.digest[:12]}
        pages = []

        def has_both() -> bool:  # the gateway reads of a new release within a second
            pages.append(http.get("/metrics/releases").raise_for_status().text)
            return all(f'release="{digest}"' in pages[-1] for digest in digests)

        assert wait_for(has_both, 20)
    text = pages[-1]
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    samples = [sample for sample in samples if sample.labels["release"] in digests]  # other tests serve others
    counts = [s for s in samples if s.name == REQUESTS and s.labels["endpoint"] == "/predict"]
    assert sum(s.value for s in counts if s.labels["release"] == table.digest[:12]) >= 1
    assert {s.labels["case"] for s in counts} == {"small"}
    assert {s.labels["service_name"] for s in counts} == {"small"}


def test_processes_of_one_release_stay_separate():
    """Two processes have the same series, which a page may hold once."""
    text = '# HELP c_total A count.\n# TYPE c_total counter\nc_total{path="/a \\"b\\""} 2.0\n'
    merged = merge([({"process": "0"}, text), ({"process": "1"}, text), ({"process": "2"}, "")]).decode()
    ((family),) = text_string_to_metric_families(merged)
    assert [(s.labels, s.value) for s in family.samples] == [
        ({"path": '/a "b"', "process": "0"}, 2.0),
        ({"path": '/a "b"', "process": "1"}, 2.0),
    ]
