"""Promise: a call has a deadline, and a call that is late or whose client hung up leaves its slot to the next one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serving.small_chat import ask, body, chat_release, chat_service, endless
from tests.waiting import wait_for

SOON = 3.0  # seconds in which a slot is free again: llama.cpp looks for closed connections once a second
DEADLINE = 4.0


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """A release whose endless answers take a minute."""
    return chat_release(tmp_path_factory.mktemp("deadline"), slots=1, context=20_000)


@pytest.fixture(scope="module")
def client(release) -> Iterator[httpx.Client]:
    with chat_service(release) as (_, client):
        yield client


@pytest.fixture(scope="module")
def hasty(release) -> Iterator[httpx.Client]:
    with chat_service(release, deadline=DEADLINE) as (_, client):
        yield client


def seconds_to_answer(client: httpx.Client) -> float:
    begun = time.monotonic()
    assert ask(client, body()).status_code == 200
    return time.monotonic() - begun


def test_a_late_answer_is_an_error_and_frees_its_slot(hasty):
    """504 when the deadline passes; the only slot is free for the next call."""
    begun = time.monotonic()
    response = ask(hasty, endless())
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
    assert time.monotonic() - begun < DEADLINE + 1
    assert seconds_to_answer(hasty) < SOON


def test_a_late_stream_ends_with_an_error_and_frees_its_slot(hasty):
    """The deadline is of the whole call: that tokens keep coming does not prolong it."""
    begun = time.monotonic()
    with hasty.stream("POST", "/v1/chat/completions", json=endless(stream=True)) as response:
        lines = [line for line in response.iter_lines() if line]
    assert time.monotonic() - begun < DEADLINE + 1
    assert len(lines) > 10
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "timeout"
    assert seconds_to_answer(hasty) < SOON


def test_a_call_that_waits_for_a_slot_has_the_deadline_too(hasty):
    """Whoever waits behind others hears of it in time."""
    with ThreadPoolExecutor(4) as pool:
        begun = time.monotonic()
        statuses = [response.status_code for response in pool.map(lambda _: ask(hasty, endless()), range(4))]
    assert statuses == [504] * 4
    assert time.monotonic() - begun < DEADLINE + 2


@pytest.mark.parametrize("calls", [1, 5])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_hangs_up_frees_its_slot(client, stream, calls):
    """Also one that waits for a whole answer, and those that still wait for the slot."""

    def hang_up(_: int) -> None:
        try:
            with client.stream("POST", "/v1/chat/completions", json=endless(stream=stream), timeout=0.5) as response:
                for _line in zip(range(3), response.iter_lines(), strict=False):
                    pass
        except httpx.TimeoutException:
            pass

    with ThreadPoolExecutor(calls) as pool:
        list(pool.map(hang_up, range(calls)))
    assert wait_for(lambda: seconds_to_answer(client) < SOON, 2 * SOON)
    assert seconds_to_answer(client) < SOON
