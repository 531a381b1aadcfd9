"""The command line's words: a verb a flow, help from the declarations, and checks that start nothing."""

from __future__ import annotations

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from cli.main import _moment, app
from services.runtime import prefect_api
from tasks.core.errors import Busy, CaseError, DataError, GateFailed, InputError, Unavailable
from tasks.core.settings import Settings

VERBS = [
    "new",
    "validate",
    "prepare",
    "train",
    "run",
    "release",
    "import",
    "predict",
    "monitor",
    "retrain",
    "replay",
    "show",
    "vllm",
    "pin",
    "up",
    "down",
    "restart",
    "status",
    "backup",
    "restore",
    "rollout",
    "promote",
    "rollback",
    "costs",
    "keys",
    "demo",
]


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, arguments)


def test_help_lists_every_verb(run):
    """`driftline --help` and `driftline` alone tell all verbs, each with a sentence."""
    said = run("--help").output
    assert all(f" {verb} " in said for verb in VERBS)
    assert "From raw data" in said


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(run, verb):
    """Each verb says what it does and what its options mean."""
    done = run(verb, "--help")
    assert done.exit_code == 0
    if verb in ["prepare", "train", "run", "release", "import", "predict", "monitor", "retrain"]:
        for part in ("CASE", "--as-of", "--profile", "smoke"):
            assert part in done.output


@pytest.mark.parametrize("arguments", [("run",), ("run", "a", "b"), ("rnu", "a"), ("run", "a", "--asof", "2013-01-01")])
def test_wrong_usage_ends_with_2(run, arguments):
    """A missing case, one too many, an unknown verb or option."""
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("2013-04-01", "2013-04-01T00:00:00+00:00"),
        ("2013-04-01T12:30", "2013-04-01T12:30:00+00:00"),
        ("2013-04-01T12:30:00+02:00", "2013-04-01T12:30:00+02:00"),
    ],
)
def test_an_as_of_without_a_zone_is_utc(text, moment):
    """A day is its start; a moment without a zone is UTC."""
    read = _moment(text)
    assert (read.isoformat() if read else read) == moment


@pytest.mark.parametrize("text", ["yesterday", "2013-13-01", "01.04.2013", ""])
def test_an_as_of_that_is_no_date(text):
    """What was found and what is allowed."""
    with pytest.raises(InputError, match="2013-04-01"):
        _moment(text)


def test_exit_codes_tell_what_kind_of_trouble_it_was():
    """2 the user's input, 3 a gate, 4 busy, 5 something does not answer: scripts depend on them."""
    assert [e.exit_code for e in (CaseError, DataError, InputError)] == [2, 2, 2]
    assert [e.exit_code for e in (GateFailed, Busy, Unavailable)] == [3, 4, 5]


@pytest.mark.parametrize("case", ["flights", "credit"])
def test_the_shipped_cases_hold_against_their_engines(run, case):
    """`driftline validate` reads sources, expectations, estimator and gates of a case, and starts nothing."""
    done = run("validate", case)
    assert done.exit_code == 0, done.exception
    assert f"{case} is valid" in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("assistant", "--from", "2026-10-01", "--to", "2026-11-01"), "kind: llm"),
        (("flights", "--from", "2013-04", "--to", "2013-12-31", "--policies", "never,weekly"), "weekly"),
        (("flights", "--from", "2013-04-01", "--to", "2013-03-31"), "before it begins"),
    ],
)
def test_a_replay_that_can_not_be_played_starts_nothing(run, arguments, told):
    """A language case, an unknown policy and a period backwards are refused before Prefect is imported."""
    error = run("replay", *arguments).exception
    assert isinstance(error, InputError)
    assert told in str(error)


def test_a_busy_prefect_server_is_waited_for_and_a_missing_one_is_not(monkeypatch):
    """One that takes seconds to answer is there; where nobody listens that is known at once."""

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(2.5)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("PREFECT_API_URL", "")  # put back afterwards
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        here = Settings(prefect_url=f"http://127.0.0.1:{server.server_port}/api")
        monkeypatch.setattr(prefect_api, "settings", lambda: here)
        assert prefect_api.reach_prefect()
        assert os.environ["PREFECT_API_URL"] == here.prefect_url
        server.shutdown()
    began = time.monotonic()
    assert not prefect_api.reach_prefect()
    assert time.monotonic() - began < 1
