"""OpenLineage events of a run: appended to a file a month, and sent in one batch to a server where one is configured.

A run never waits for the server longer than a few seconds, and never fails for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import NAMESPACE_URL, uuid4, uuid5

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset

PRODUCER = "https://github.com/driftline/driftline"
NAMESPACE = "driftline"
FOLDER = "openlineage"  # of the state folder
PATH = "/api/v1/lineage/batch"
TIMEOUT = 5.0  # seconds
EventType = Literal["START", "COMPLETE", "FAIL"]


@dataclass
class RunLineage:
    """The events of one run. Steps add what they read and wrote, by name and version."""

    flow: str
    case: str
    commit: str
    state: Path
    url: str = ""  # of the server; empty: none
    run: str = ""  # id in Prefect; empty: a new one
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    _events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = self.run or str(uuid4())

    def begin(self) -> None:
        """On disk at once, so that a killed run has its beginning."""
        self._emit("START")

    def end(self, error: BaseException | None = None) -> None:
        """Write the end, and send both."""
        self._emit("FAIL" if error else "COMPLETE", error)
        if self.url:
            send_events(self._events, self.url)

    def _emit(self, kind: EventType, error: BaseException | None = None) -> None:
        try:
            event = run_event(self, kind, error)
            path = self.state / FOLDER / f"{self.case}-{event['eventTime'][:7]}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(event) + "\n")  # one write: events of several runs don't mix
            self._events.append(event)
        except (OSError, ValueError, TypeError) as problem:
            logging.getLogger("driftline").warning("An OpenLineage event can't be written: %s", problem)


def run_event(lineage: RunLineage, kind: EventType, error: BaseException | None) -> dict[str, Any]:
    """An event in the shape of OpenLineage's own classes, which check it. Raises: ValueError, TypeError."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run, set_producer, source_code_location_job
    from openlineage.client.serde import Serde

    set_producer(PRODUCER)  # of each facet
    location = source_code_location_job.SourceCodeLocationJobFacet(type="git", url=PRODUCER, version=lineage.commit)
    facets: dict[str, Any] = {}
    if error is not None:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(message=message, programmingLanguage="PYTHON")
    event = RunEvent(
        eventType=RunState[kind],
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(runId=_uuid(lineage.run), facets=facets),
        job=Job(namespace=NAMESPACE, name=f"{lineage.case}.{lineage.flow}", facets={"sourceCodeLocation": location}),
        inputs=_inputs(lineage.inputs),
        outputs=_outputs(lineage.outputs),
        producer=PRODUCER,
    )
    written: dict[str, Any] = Serde.to_dict(event)
    return written


def _uuid(run: str) -> str:
    from uuid import UUID

    try:
        return str(UUID(run))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, run))


def _inputs(versions: Mapping[str, str]) -> list[InputDataset]:
    from openlineage.client.event_v2 import InputDataset

    return [InputDataset(namespace=NAMESPACE, name=name, facets=_version(text)) for name, text in versions.items()]


def _outputs(versions: Mapping[str, str]) -> list[OutputDataset]:
    from openlineage.client.event_v2 import OutputDataset

    return [OutputDataset(namespace=NAMESPACE, name=name, facets=_version(text)) for name, text in versions.items()]


def _version(text: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=text)} if text else {}


def send_events(events: list[dict[str, Any]], url: str) -> bool:
    """Send a batch; False, and a warning, when the server does not take it."""
    import httpx

    try:
        response = httpx.post(f"{url.rstrip('/')}{PATH}", json=events, timeout=TIMEOUT)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        logging.getLogger("driftline").warning("OpenLineage events stay in their file: %s: %s", url, error)
        return False
    return True


_current: ContextVar[RunLineage | None] = ContextVar("openlineage_run", default=None)


@contextlib.contextmanager
def emitting(lineage: RunLineage) -> Iterator[None]:
    """Emit the events of a run around its steps."""
    token = _current.set(lineage)
    lineage.begin()
    try:
        yield
    except BaseException as error:
        lineage.end(error)
        raise
    else:
        lineage.end()
    finally:
        _current.reset(token)


def add_input(name: str, version: str) -> None:
    """State that the current run has read a data set; without a run, nothing."""
    if (lineage := _current.get()) is not None:
        lineage.inputs[name] = version


def add_output(name: str, version: str) -> None:
    """State that the current run has written a data set or a release."""
    if (lineage := _current.get()) is not None:
        lineage.outputs[name] = version
