"""The Prometheus metrics of all releases, collected over their sockets, which only the gateway can reach."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import aiohttp
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from services.gateway.client_sessions import ClientSessions
from services.rollout.routing import Route, Routes

TIMEOUT = 5.0  # seconds; a process that takes longer is left out


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
    """Merge the metrics of several processes, distinguished by additional labels."""
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
    http, base = sessions.session_for(address)
    try:
        async with http.get(f"{base}/metrics", timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as response:
            return await response.text() if response.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError):
        return ""


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
