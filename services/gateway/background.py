"""The background loops of a gateway process; none of them blocks another one or a call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from sqlalchemy import insert, update

from services.gateway.config_cache import REFRESH_SECONDS, ConfigCache
from services.gateway.outbox import Outbox
from services.gateway.usage_writer import WORKER_TIMEOUT, close_lost_calls
from services.rollout.plan import advance_plans
from services.store.alerts import PLATFORM, add_alert, alert_loop_failure
from services.store.database import Store, now, workers
from tasks.core.errors import DriftlineError
from tasks.core.events import alert_event
from tasks.core.loops import TaskLoop, ThreadLoop, loops

DECISION_SECONDS = 2.0  # seconds between decisions on rollouts and on calls of dead processes
HEARTBEAT_SECONDS = 5.0  # seconds between heartbeats; each also checks that the store is writable
MAX_PAUSE = 2.0  # maximum seconds between retries after failures


class BackgroundLoops:
    """Starts and stops the loops. They are threads: a full pool or a busy event loop must not delay a revocation;
    `delivery` needs the event loop, so the application starts and stops it.
    """

    def __init__(self, store: Store, config_cache: ConfigCache, outbox: Outbox, worker: str) -> None:
        self._store, self._config_cache, self._worker = store, config_cache, worker
        self.heartbeat = ThreadLoop("heartbeat", self.send_heartbeat, interval=HEARTBEAT_SECONDS, max_backoff=MAX_PAUSE)
        self._threads = [
            ThreadLoop("keys", config_cache.refresh_keys, interval=REFRESH_SECONDS, max_backoff=MAX_PAUSE),
            ThreadLoop("routes", config_cache.refresh_routes, interval=REFRESH_SECONDS, max_backoff=MAX_PAUSE),
            self.heartbeat,
            ThreadLoop("lost calls", self.close_lost_calls, interval=DECISION_SECONDS, max_backoff=MAX_PAUSE),
            ThreadLoop("rollouts", self.advance, interval=DECISION_SECONDS, max_backoff=MAX_PAUSE),
            ThreadLoop("alerts", self.raise_alerts, interval=DECISION_SECONDS, max_backoff=MAX_PAUSE),
        ]
        self.delivery = TaskLoop("delivery to Prefect", outbox.deliver, max_backoff=MAX_PAUSE)
        self._alerted: dict[str, set[tuple[str, str]]] = {}  # problems with an alert, by kind

    def start(self) -> None:
        """Read keys and routes, send a first heartbeat so that no call counts as lost, and start the threads."""
        for step in (self._config_cache.refresh_keys, self._config_cache.refresh_routes, self.send_heartbeat):
            try:
                step()
            except Exception:  # the loops retry; until they succeed, every request is refused
                logging.getLogger("driftline").exception("The gateway could not read its store at the start.")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads and deregister this worker, so that its open calls are settled without a timeout."""
        for thread in self._threads:
            thread.stopping.set()
        for thread in self._threads:
            thread.stop(5)
        try:
            with self._store.writing() as connection:
                connection.execute(workers.delete().where(workers.c.id == self._worker))
        except Exception:  # its calls count as lost a minute later
            logging.getLogger("driftline").exception("The gateway could not deregister itself.")

    def send_heartbeat(self) -> None:
        with self._store.writing() as connection:
            own_row = workers.c.id == self._worker
            if not connection.execute(update(workers).where(own_row).values(last_seen=now())).rowcount:
                connection.execute(insert(workers).values(id=self._worker, last_seen=now()))
            connection.execute(workers.delete().where(workers.c.last_seen < now() - 100 * WORKER_TIMEOUT))

    def close_lost_calls(self) -> None:
        close_lost_calls(self._store)

    def advance(self) -> None:
        """Decide every plan, then raise DriftlineError about those that failed."""
        errors = advance_plans(self._store)
        subjects = {case: f"{case}: no decision on its rollout" for case in errors}
        self._alert_new("rollout", [(case, subjects[case], error) for case, error in errors.items()])
        if errors:
            raise DriftlineError("; ".join(f"rollout of {case}: {error}" for case, error in errors.items()))

    def raise_alerts(self) -> None:
        """Alert once about each loop that fails repeatedly and each unusable row."""
        loops.alert(partial(alert_loop_failure, self._store, "gateway"))
        problems = self._config_cache.routes.problems
        self._alert_new("row", [(PLATFORM, "The gateway ignores a row of its store", text) for text in problems])

    def _alert_new(self, kind: str, problems: Sequence[tuple[str, str, str]]) -> None:
        """Alert about problems (case, subject, body) that are new since the last check."""
        known = self._alerted.setdefault(kind, set())
        for case, subject, body in problems:
            if (case, body) not in known:
                self._add_alert(case, f"{kind} {body}", subject, body)
                known.add((case, body))
        self._alerted[kind] = {(case, body) for case, _, body in problems}

    def _add_alert(self, case: str, cause: str, subject: str, body: str) -> None:
        with self._store.writing() as connection:
            add_alert(connection, alert_event(case, cause, subject, body))
