"""Promise: the time of a hung engine is not charged, and the gateway's readiness reports it."""

from __future__ import annotations

import contextlib
import signal

import psutil
import pytest
from sqlalchemy import select

from services.runtime.supervision import Supervisor
from services.store.database import usage_records
from tests.gateway.stack import gateway_client
from tests.serving.small_chat import body, engine_process
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")


def test_a_hang_is_reported_and_charged_to_nobody(settings, store, talker):
    """The call that met it is answered, and pays for the seconds of its answer alone; /readyz names the release."""
    process = engine_process(Supervisor(settings.state).pid())
    with gateway_client(settings) as http:
        assert wait_for(lambda: not http.get("/readyz").json()["unready"], 30)
        process.send_signal(signal.SIGSTOP)
        response = http.post("/v1/chat/completions", json=body("Say hello.", model="talker", max_tokens=4))
        assert response.status_code == 200
    with store.reading() as connection:
        wanted = usage_records.c.id == response.headers["x-request-id"]
        seconds, engine_seconds = connection.execute(
            select(usage_records.c.seconds, usage_records.c.engine_seconds).where(wanted)
        ).one()
    assert seconds > 4
    assert engine_seconds < seconds / 2


def test_readiness_names_a_release_without_engine(settings, talker):
    """While its engines are killed, each later than the one before, and until one stays up."""
    with gateway_client(settings) as http:

        def is_named() -> bool:
            with contextlib.suppress(StopIteration, ValueError, psutil.Error):  # none runs just now
                engine_process(Supervisor(settings.state).pid()).kill()
            return "talker" in http.get("/readyz").json()["unready"]

        assert wait_for(is_named, 30, 0.1)
        assert wait_for(lambda: not http.get("/readyz").json()["unready"], 60)


def test_a_disconnected_client_aborts_its_call(settings, store, talker):
    """The call is entered as aborted when its client leaves, not when its answer would have been complete."""
    import httpx

    long = body("Tell a story.", model="talker", max_tokens=450, response_format={"type": "text"}, ignore_eos=True)
    with gateway_client(settings) as http, pytest.raises(httpx.TimeoutException):
        http.post("/v1/chat/completions", json=long, timeout=1)
    latest = (
        select(usage_records.c.state, usage_records.c.seconds)
        .where(usage_records.c.case == "talker")
        .order_by(usage_records.c.at.desc())
    )

    def last() -> tuple[str, float]:
        with store.reading() as connection:
            return connection.execute(latest).first()

    assert wait_for(lambda: last()[0] == "aborted", 10)
    assert last()[1] < 3
