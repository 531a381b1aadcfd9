"""The Prometheus metrics of all releases, collected over their sockets, since nobody but the gateway reaches those."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import aiohttp
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from services.gateway.client_sessions import ClientSessions
from services.rollout.routing import Route, Routes

SECONDS = 5.0  # that a release's process may take; one that takes longer is missing this time


async def release_metrics(sessions: ClientSessions, routes: Routes) -> bytes:
    """In Prometheus's text format; each sample has the labels `case`, `release` and `process` (0 is the first)."""
    processes = [
        (route, number, address)
        for route in routes.by_digest.values()
        for number, address in enumerate(route.addresses)
    ]
    texts = await asyncio.gather(*(_fetch(sessions, address) for _, _, address in processes))
    answered = [(_labels(route, number), text) for (route, number, _), text in zip(processes, texts, strict=True)]
    return await asyncio.to_thread(merge, answered)


def merge(texts: Iterable[tuple[dict[str, str], str]]) -> bytes:
    """Metrics of several processes as those of one, which takes more labels to tell them apart."""
    families: dict[str, Metric] = {}
    for labels, text in texts:
        for family in text_string_to_metric_families(text):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples += [sample._replace(labels={**sample.labels, **labels}) for sample in family.samples]
    registry = CollectorRegistry()
    registry.register(_Collected(families.values()))
    return generate_latest(registry)


def _labels(route: Route, number: int) -> dict[str, str]:
    return {"case": route.case, "release": route.digest[:12], "process": str(number)}


async def _fetch(sessions: ClientSessions, address: str) -> str:
    http, base = sessions.to(address)
    try:
        async with http.get(f"{base}/metrics", timeout=aiohttp.ClientTimeout(total=SECONDS)) as response:
            return await response.text() if response.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError):
        return ""


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
