"""Promise: each run leaves OpenLineage events in a file, and a server that is away changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.serving.process import free_port
from tasks.core.errors import DataError
from tasks.govern.openlineage import FOLDER, PATH, RunLineage, add_input, add_output, emitting


def events(state: Path) -> list[dict[str, Any]]:
    (path,) = (state / FOLDER).iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def lineage(state: Path, url: str = "") -> RunLineage:
    return RunLineage(flow="release", case="shop", commit="c" * 40, state=state, url=url)


def run(state: Path, url: str = "") -> None:
    with emitting(lineage(state, url)):
        add_input("shop/orders file://orders.csv", "k1")
        add_output("shop/snapshot", "d.dir")


def fail(state: Path) -> None:
    with emitting(lineage(state)):
        assert [event["eventType"] for event in events(state)] == ["START"]
        raise DataError("Source orders is empty.")


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    """A server that takes batches, and what it received."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}/", received
    listening.shutdown()
    listening.server_close()


def test_a_run_has_a_start_and_an_end_with_its_data(tmp_path):
    """In the shape of the specification: one run id, versions of what was read and written, the commit."""
    run(tmp_path)
    start, end = events(tmp_path)
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"] == str(UUID(start["run"]["runId"]))
    assert end["job"]["name"] == "shop.release"
    assert end["job"]["facets"]["sourceCodeLocation"]["version"] == "c" * 40
    assert end["inputs"][0]["facets"]["version"]["datasetVersion"] == "k1"
    assert end["outputs"][0]["name"] == "shop/snapshot"
    for event in (start, end):
        assert {"eventTime", "producer", "schemaURL", "inputs", "outputs"} <= set(event)
        assert "OpenLineage" in event["schemaURL"]


def facets_of(value: Any) -> Iterator[dict[str, Any]]:
    """All facets of an event, at any depth."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name.endswith("acets"):
                yield from each.values()
            yield from facets_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from facets_of(each)


def test_events_have_what_the_specification_requires(tmp_path):
    """Of RunEvent 2-0-2: a time with its zone, a UUID, names in a namespace, producer and schema of each facet."""
    run(tmp_path)
    with pytest.raises(DataError):
        fail(tmp_path / "failed")
    for event in (*events(tmp_path), *events(tmp_path / "failed")):
        assert datetime.fromisoformat(event["eventTime"]).utcoffset() is not None
        assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
        assert event["producer"].startswith("https://")
        assert UUID(event["run"]["runId"])
        for each in (event["job"], *event["inputs"], *event["outputs"]):
            assert each["namespace"] == "driftline"
            assert each["name"]
        facets = list(facets_of(event))
        assert facets
        for facet in facets:
            assert facet["_producer"] == event["producer"]
            assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")


def test_a_failed_run_says_why(tmp_path):
    """And the error goes on; a killed run has its start alone."""
    with pytest.raises(DataError):
        fail(tmp_path)
    end = events(tmp_path)[-1]
    assert end["eventType"] == "FAIL"
    assert end["run"]["facets"]["errorMessage"]["message"] == "Source orders is empty."


def test_a_server_receives_one_batch(tmp_path, server):
    url, received = server
    run(tmp_path, url)
    ((path, batch),) = received
    assert path == PATH
    assert batch == events(tmp_path)


@pytest.mark.parametrize("url", ["refused", "none", "http://[broken"])
def test_a_server_that_is_away_changes_nothing(tmp_path, url, caplog):
    """A closed port, and addresses that are none: the file has both events."""
    run(tmp_path, f"http://127.0.0.1:{free_port()}" if url == "refused" else url)
    assert len(events(tmp_path)) == 2
    assert "stay in their file" in caplog.text


def test_a_full_disk_changes_nothing(tmp_path, caplog):
    (tmp_path / FOLDER).write_text("a file where the folder belongs")
    run(tmp_path)
    assert "can't be written" in caplog.text


def test_without_a_run_nothing_is_stated():
    add_output("shop/snapshot", "d.dir")
