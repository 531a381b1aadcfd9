"""The command line: one command per flow, generated help, and checks that start nothing."""

from __future__ import annotations

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from cli.main import app, parse_as_of
from services.runtime import prefect_api
from tasks.core.errors import Busy, CaseError, DataError, GateFailed, InputError, InsufficientEvidence, Unavailable
from tasks.core.settings import Settings
from tests.conftest import ROOT

VERBS = [
    "new",
    "validate",
    "prepare",
    "train",
    "run",
    "import-model",
    "predict",
    "remove",
    "monitor",
    "retrain",
    "backtest",
    "show",
    "vllm",
    "ask",
    "snapshot",
    "up",
    "down",
    "restart",
    "doctor",
    "status",
    "backup",
    "restore",
    "rollout",
    "promote",
    "rollback",
    "costs",
    "keys",
    "audit",
    "why",
    "history",
    "demo",
]


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, arguments)


def test_help_lists_every_verb(run):
    """`driftline --help` lists all commands."""
    output = run("--help").output
    assert all(f" {verb} " in output for verb in VERBS)
    assert "From raw data" in output


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(run, verb):
    """Each command describes itself and its options."""
    done = run(verb, "--help")
    assert done.exit_code == 0
    if verb in ["prepare", "train", "run", "release", "import", "import-model", "predict", "monitor", "retrain"]:
        for part in ("CASE", "--as-of", "--profile", "smoke"):
            assert part in done.output


@pytest.mark.parametrize(
    ("alias", "flow"), [("release", "release"), ("import", "release"), ("pin", ""), ("replay", "backtest")]
)
def test_old_names_still_work(run, monkeypatch, tmp_path, alias, flow):
    """Each old command does the same as its new name, is not listed, and is named in a warning."""
    flows = []
    monkeypatch.setattr("cli.terminal.run_flow", lambda flow, request, steps=None: flows.append(flow))
    monkeypatch.setattr("cli.show.pin_snapshot", flows.append)
    arguments = {"import": [str(tmp_path)], "replay": ["--from", "2013-04", "--to", "2013-05"]}.get(alias, [])
    done = run(alias, "flights", *arguments)
    assert done.exit_code == 0, done.exception
    assert flows == [flow or "flights"]
    assert alias == "replay" or f"`{alias}` is now called" in done.output
    assert f"\n│ {alias} " not in run("--help").output


@pytest.mark.parametrize("flow", ["prepare", "train", "release", "predict", "monitor", "retrain", "backtest"])
def test_each_flow_that_a_command_runs_exists(flow):
    """run_flow looks a flow up by its name."""
    assert f"def {flow}(" in (ROOT / "flows" / f"{flow}.py").read_text()


@pytest.mark.parametrize(
    ("word", "suggested"),
    [("delete", "remove"), ("rm", "remove"), ("stats", "status"), ("relase", ""), ("prune", ""), ("qqq", "")],
)
def test_a_suggestion_never_does_more(run, word, suggested):
    """Kind of row 45: `delete` is not `release`, an old name of `run`, which would train."""
    output = " ".join(run(word, "shop").output.split())
    assert f"No such command '{word}'." in output
    assert ("Did you mean" in output, f"Did you mean {suggested}?" in output) == (bool(suggested), bool(suggested))


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
    read = parse_as_of(text)
    assert (read.isoformat() if read else read) == moment


@pytest.mark.parametrize("text", ["yesterday", "2013-13-01", "01.04.2013", ""])
def test_an_as_of_that_is_no_date(text):
    """The error names an allowed form."""
    with pytest.raises(InputError, match="2013-04-01"):
        parse_as_of(text)


def test_exit_codes_name_the_kind_of_error():
    """2 wrong input, 3 a failed gate, 4 busy, 5 unavailable: scripts depend on them."""
    assert [e.exit_code for e in (CaseError, DataError, InputError)] == [2, 2, 2]
    assert [e.exit_code for e in (GateFailed, Busy, Unavailable, InsufficientEvidence)] == [3, 4, 5, 7]


@pytest.mark.parametrize("case", ["flights", "credit"])
def test_the_shipped_cases_are_valid(run, case):
    """`driftline validate` checks sources, expectations, estimator and gates."""
    done = run("validate", case)
    assert done.exit_code == 0, done.exception
    assert f"{case} is valid" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("assistant", "--from", "2026-10-01", "--to", "2026-11-01"), "kind: llm"),
        (("flights", "--from", "2013-04", "--to", "2013-12-31", "--policies", "never,weekly"), "weekly"),
        (("flights", "--from", "2013-04-01", "--to", "2013-03-31"), "before it begins"),
    ],
)
def test_an_invalid_backtest_starts_nothing(run, arguments, message):
    """A language case, an unknown policy and a reversed period are refused before Prefect is imported."""
    error = run("backtest", *arguments).exception
    assert isinstance(error, InputError)
    assert message in str(error)


def test_a_busy_prefect_server_is_awaited(monkeypatch):
    """A server that takes seconds counts as up; a closed port is known at once."""

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
        config = Settings(prefect_url=f"http://127.0.0.1:{server.server_port}/api")
        monkeypatch.setattr(prefect_api, "settings", lambda: config)
        assert prefect_api.reach_prefect()
        assert os.environ["PREFECT_API_URL"] == config.prefect_url
        server.shutdown()
    began = time.monotonic()
    assert not prefect_api.reach_prefect()
    assert time.monotonic() - began < 1
