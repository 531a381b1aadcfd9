"""The gateway's Prometheus metrics."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from services.gateway.call import Call
from tasks.core.loops import Loop

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
LABELS = ("case", "release", "role")


class GatewayMetrics:
    """Metrics of all gateway processes, if PROMETHEUS_MULTIPROC_DIR names a shared folder."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.calls = Counter("driftline_calls", "Completed requests.", [*LABELS, "state", "status"], registry=own)
        self.seconds = Histogram(
            "driftline_call_seconds",
            "Seconds from the request to the last byte of its response.",
            LABELS,
            buckets=SECONDS,
            registry=own,
        )
        self.first_byte = Histogram(
            "driftline_first_byte_seconds",
            "Seconds from the request to the first byte of a streamed response.",
            LABELS,
            buckets=SECONDS,
            registry=own,
        )
        self.tokens = Counter("driftline_tokens", "Tokens of prompts and answers.", [*LABELS, "kind"], registry=own)
        self.spent = Counter("driftline_spent", "Costs, in the currency of the budgets.", LABELS, registry=own)
        self.cache = Counter("driftline_cache", "Look-ups in the response cache.", ["case", "outcome"], registry=own)
        self.retrievals = Counter(
            "driftline_retrievals",
            "Answers and searches from passages, by outcome: passages, none, abstained or ungrounded.",
            [*LABELS, "outcome"],
            registry=own,
        )
        self.guardrails = Counter(
            "driftline_guardrails",
            "Findings of guardrails by outcome: an action, shadow (not enforced) or error (unchecked).",
            [*LABELS, "stage", "rule", "outcome"],
            registry=own,
        )
        self.retries = Counter("driftline_retries", "Attempts that were retried.", ["case"], registry=own)
        self.queued = Gauge(
            "driftline_waiting", "Requests that wait in a queue.", ["case"], multiprocess_mode="livesum", registry=own
        )
        self.in_flight = Gauge(
            "driftline_working",
            "Requests in progress at a release.",
            ["case"],
            multiprocess_mode="livesum",
            registry=own,
        )
        self.unlogged = Counter(
            "driftline_unlogged", "Requests that the log lacks, or whose texts it lacks.", registry=own
        )
        self.loop_failures = Counter(
            "driftline_loop_failures", "Failed steps of background loops.", ["loop"], registry=own
        )

    def count_loop_failure(self, loop: Loop) -> None:
        self.loop_failures.labels(loop.name).inc()

    def observe_first_byte(self, call: Call, seconds: float) -> None:
        """Observe the time to a stream's first byte."""
        route = call.share.route
        self.first_byte.labels(route.case, route.digest[:12], call.share.role).observe(seconds)

    def observe_call(self, call: Call) -> None:
        route = call.share.route
        labels = (route.case, route.digest[:12], call.share.role)
        self.calls.labels(*labels, call.state, call.status).inc()
        self.seconds.labels(*labels).observe(call.seconds)
        if call.tokens_in:
            for kind in ("in", "cached", "out"):
                self.tokens.labels(*labels, kind).inc(getattr(call, f"tokens_{kind}"))
        if call.price:
            self.spent.labels(*labels).inc(call.price / 1e9)
        if call.retrieval:
            self.retrievals.labels(*labels, call.retrieval.outcome).inc()
        for (stage, rule, outcome), count in call.guard.counts.items():
            self.guardrails.labels(*labels, stage, rule, outcome).inc(count)
        if call.retries:
            self.retries.labels(route.case).inc(call.retries)

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
