"""The loops that a gateway process runs beside its calls, each apart from the others and from every call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from sqlalchemy import insert, update

from services.gateway.config_cache import EVERY, ConfigCache
from services.gateway.outbox import Outbox
from services.gateway.usage_writer import LIVES, close_lost_calls
from services.rollout.plan import advance_plans
from services.store.alerts import PLATFORM, add_alert, alert_loop_failure
from services.store.database import Store, now, workers
from tasks.core.errors import DriftlineError
from tasks.core.events import alert_event
from tasks.core.loops import TaskLoop, ThreadLoop, loops

DECIDE = 2.0  # seconds between decisions on rollouts and on calls of dead processes
HEARTBEAT = 5.0  # seconds between two; each one also shows that the store can be written
PROMPT = 2.0  # seconds that a loop waits at most after failures: a fault must not last longer than its cause


class Background:
    """Starts and stops them. Threads, since a full thread pool or a busy event loop must not hold up a revoked key;
    `delivery` needs the event loop, and whoever runs that starts and stops it.
    """

    def __init__(self, store: Store, memory: ConfigCache, telling: Outbox, worker: str) -> None:
        self._store, self._memory, self._worker = store, memory, worker
        self.heartbeat = ThreadLoop("heartbeat", self.say_alive, interval=HEARTBEAT, max_backoff=PROMPT)
        self._threads = [
            ThreadLoop("keys", memory.look_at_keys, interval=EVERY, max_backoff=PROMPT),
            ThreadLoop("routes", memory.look_at_routes, interval=EVERY, max_backoff=PROMPT),
            self.heartbeat,
            ThreadLoop("lost calls", self.close_lost_calls, interval=DECIDE, max_backoff=PROMPT),
            ThreadLoop("rollouts", self.advance, interval=DECIDE, max_backoff=PROMPT),
            ThreadLoop("alerts", self.alert, interval=DECIDE, max_backoff=PROMPT),
        ]
        self.delivery = TaskLoop("delivery to Prefect", telling.deliver, max_backoff=PROMPT)
        self._alerted: dict[str, set[tuple[str, str]]] = {}  # by kind, the problems that people were alerted about

    def start(self) -> None:
        """Know keys and routes, say that we live, so that no call is taken for lost, and start every loop."""
        for step in (self._memory.look_at_keys, self._memory.look_at_routes, self.say_alive):
            try:
                step()
            except Exception:  # the loops go on trying, and until then nobody gets in
                logging.getLogger("driftline").exception("The gateway's first look at its store failed.")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads, and say that this process ends: nobody need wait for it to be taken for dead."""
        for thread in self._threads:
            thread.stopping.set()
        for thread in self._threads:
            thread.stop(5)
        try:
            with self._store.writing() as to:
                to.execute(workers.delete().where(workers.c.id == self._worker))
        except Exception:  # its calls count as lost a minute later
            logging.getLogger("driftline").exception("The gateway could not sign off.")

    def say_alive(self) -> None:
        with self._store.writing() as to:
            mine = workers.c.id == self._worker
            if not to.execute(update(workers).where(mine).values(last_seen=now())).rowcount:
                to.execute(insert(workers).values(id=self._worker, last_seen=now()))
            to.execute(workers.delete().where(workers.c.last_seen < now() - 100 * LIVES))

    def close_lost_calls(self) -> None:
        close_lost_calls(self._store)

    def advance(self) -> None:
        """Raises: DriftlineError for plans that can't be decided, after all others were."""
        errors = advance_plans(self._store)
        subjects = {case: f"{case}: its rollout can't be decided" for case in errors}
        self._alert_new("rollout", [(case, subjects[case], error) for case, error in errors.items()])
        if errors:
            raise DriftlineError("; ".join(f"rollout of {case}: {error}" for case, error in errors.items()))

    def alert(self) -> None:
        """Raise an alert about each loop that keeps failing and each row that can't be used, once."""
        loops.alert(partial(alert_loop_failure, self._store, "gateway"))
        problems = self._memory.routes.problems
        self._alert_new("row", [(PLATFORM, "The gateway leaves out a row of its store", text) for text in problems])

    def _alert_new(self, kind: str, problems: Sequence[tuple[str, str, str]]) -> None:
        """Alert about the problems (case, subject, body) that were not there at the last look."""
        known = self._alerted.setdefault(kind, set())
        for case, subject, body in problems:
            if (case, body) not in known:
                self._add_alert(case, f"{kind} {body}", subject, body)
                known.add((case, body))
        self._alerted[kind] = {(case, body) for case, _, body in problems}

    def _add_alert(self, case: str, cause: str, subject: str, body: str) -> None:
        with self._store.writing() as to:
            add_alert(to, alert_event(case, cause, subject, body))
