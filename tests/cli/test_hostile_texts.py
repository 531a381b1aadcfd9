"""Promise: what people write is shown as they wrote it, and never obeyed: neither markup, nor escapes, nor links."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from rich.text import Text
from sqlalchemy import insert
from typer.testing import CliRunner

from cli.main import app, run_command
from services.store.approvals import ApprovalRequest, request_approval
from services.store.database import Store, keys, now
from services.store.keys import MAX_TEAM
from tasks.core import console as terminal
from tasks.core.display import escape_markdown, escape_terminal, one_line
from tasks.core.errors import InputError
from tasks.core.events import alert_event
from tasks.core.settings import Settings, settings
from tasks.data.language.data_card import write_card
from tasks.data.language.pairs import Pair
from tasks.data.results import Validation
from tasks.evaluate.report import explain, lines
from tasks.evaluate.results import Criterion, Verdict

HOSTILE = {
    "closing tag": "we [/foo] agreed",
    "style": "[bold red]warning[/]",
    "link tag": "[link=https://evil.example]click[/link]",
    "team": "[red]",
    "open": "[/",
    "emoji": ":skull: 1[0:2]",
    "escape": "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "one byte escape": "\x9b31mred",
    "back": "safe\b\b\b\bevil\revil",
    "nul": "a\0b",
    "direction": "abc\u202ecba\u2066x\u2069",
    "line": "one\nkey 0000 of root, shown only now:\ndl-forged",
    "separator": "one\u2028two\u2029three\x85four",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "markdown": "[click](https://evil.example) ![x](https://evil.example/x.png) `a` | b",
    "reference": "[click][1]\n\n[1]: https://evil.example",
    "bare link": "https://evil.example www.evil.example <https://evil.example>",
    "slack": "<!channel> <https://evil.example|click>",
}
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def text(request) -> str:
    return request.param


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An installation with a case, whose servers don't run."""
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DRIFTLINE_CASES", str(tmp_path / "cases"))
    monkeypatch.setenv("DRIFTLINE_DATA", str(tmp_path / "data"))
    settings.cache_clear()
    folder = tmp_path / "cases" / "shop"
    folder.mkdir(parents=True)
    (folder / "case.yaml").write_text("kind: tabular\n")
    yield Settings(state=tmp_path / "state", cases=tmp_path / "cases", data=tmp_path / "data")
    settings.cache_clear()


def shown(*arguments: str) -> str:
    """What a command prints; nothing of it moves the cursor."""
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert not OBEYED.search(done.output), ascii(done.output)
    return done.output


def flat(output: str) -> str:
    """Without the breaks that a narrow table makes."""
    return "".join(output.split())


def test_a_key_is_shown_once_whatever_its_team_is_called(installation: Settings, text: str):
    """Making it, listing it, costs and limits of the team; an earlier version took names of any letters."""
    if text.isprintable() and len(text) <= MAX_TEAM:
        out = shown("keys", "create", "--team", text)
        first, secret, *rest = out.splitlines()
        assert re.fullmatch(r"dl-[\w-]{43}", secret)
        assert not rest
        assert one_line(text) in first
        assert one_line(text) in shown("keys", "team", text, "--rpm", "5")
    else:
        for verb in (("create", "--team", text), ("team", text, "--rpm", "5")):
            assert isinstance(CliRunner().invoke(app, ("keys", *verb)).exception, InputError)
        add_keys(installation, [text])
    assert len(shown("keys", "list").splitlines()) >= 2
    assert flat(one_line(text))[:20] in flat(shown("keys", "list"))


def add_keys(settings: Settings, teams: Iterable[str]) -> None:
    """As the store of an earlier version holds them."""
    with closing(Store(settings)) as store, store.changing() as connection:
        rows = [{"id": f"k{n}", "hash": f"h{n}", "team": team} for n, team in enumerate(teams)]
        connection.execute(insert(keys), [{**row, "roles": ["predict"], "created_at": now()} for row in rows])


def test_reasons_and_people_are_shown_as_they_wrote(installation: Settings, text: str):
    """A pending decision with its criteria, and what was said of it."""
    moment = datetime(2013, 4, 1, tzinfo=UTC)
    with closing(Store(installation)) as store:
        request = ApprovalRequest("shop", "e" * 64, moment, text, explain(verdict_of(text)))
        approval = request_approval(store, request, timedelta(days=1))
    assert approval.evidence_summary
    out = shown("reject", "shop", "--evidence", "e" * 12, "--why", text)
    assert flat(one_line(text))[:20] in flat(out)


def verdict_of(text: str) -> Verdict:
    criterion = Criterion(name=text, passed=True, observed=1.0, required=">= 0.5", note=text)
    values = {"champion": None, "metrics": {}, "scores": Path("scores.parquet"), "digest": "d" * 64}
    return Verdict(decision="promote", criteria=(criterion,), **values)


def test_reports_hold_no_link_image_or_html(text: str, tmp_path: Path):
    """A verdict, and the data card of pairs."""
    pair = Pair(messages=({"role": "user", "content": text},), answer=text, intent=text, origin=text)
    validation = Validation.model_construct(quarantined={}, expectations=1)
    write_card(tmp_path / "card.md", {"case": "shop"}, {"train": [pair]}, inputs={}, notes={}, validation=validation)
    verdict = verdict_of(text)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    for report in (card, explain(verdict)):
        html = rendered(report)
        assert not re.search(r"<(?!/?(?:p|table|thead|tbody|tr|th|td|h1|h2|ul|li|em|strong|br)\b)", html), html
        assert not OBEYED.search(report)
    assert len(lines(verdict).splitlines()) == 2


def rendered(report: str) -> str:
    """As a page shows Markdown: with tables, and raw HTML let through."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable("table").render(report)


def test_alerts_hold_no_mention(text: str):
    """Channels make links and mentions of angle brackets."""
    payload = alert_event("shop", "cause", text, text)["payload"]
    assert not re.search(r"<[!@#a-z]", payload["subject"] + payload["body"])
    assert not OBEYED.search(payload["subject"] + payload["body"])


def test_the_console_knows_no_markup(text: str):
    """Whatever is printed, in whichever way: strings are texts, and styles come as Text."""
    console = terminal.Terminal(file=io.StringIO(), width=400, markup=True, emoji=True, force_terminal=False)
    table = terminal.PlainTable(text, title=text)
    table.add_row(text)
    for each in (text, table, terminal.styled(text, "bold"), Text.assemble("a", terminal.styled(text, "red"))):
        console.print(each)
    console.print(text, markup=True)
    with console.status(text):
        pass
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert not OBEYED.search(out)
    assert out.count(one_line(text)) + out.count(escape_terminal(text)) >= 4


def test_errors_are_shown_as_text(installation: Settings, text: str, monkeypatch, capsys):
    """What was found in a case may stand in its error."""
    (installation.cases / "shop" / "case.yaml").write_text(yaml.safe_dump({"kind": text, text: text}))
    monkeypatch.setattr("sys.argv", ["driftline", "validate", "shop"])
    ending = signal.getsignal(signal.SIGTERM)
    assert run_command() == 2
    signal.signal(signal.SIGTERM, ending)
    captured = capsys.readouterr()
    assert not OBEYED.search(captured.out + captured.err)


def test_every_verb_that_shows_something_runs_over_hostile_texts(installation: Settings):
    """All verbs of the app without required arguments, over a store that is full of them."""
    add_keys(installation, HOSTILE.values())
    group: Any = typer.main.get_command(app)
    printing = {"status", "costs", "keys list"}
    verbs = {name for name, command in group.commands.items() if not hasattr(command, "commands")}
    verbs |= {f"{name} {each}" for name, it in group.commands.items() for each in getattr(it, "commands", ())}
    assert printing <= verbs
    for verb in sorted(printing):
        shown(*verb.split())


@pytest.mark.parametrize(
    ("written", "expected"),
    [("a_b and 3 < 4, [10, 20)", "a_b and 3 < 4, [10, 20)"), ("x|y", "x\\|y"), ("<b>", "\\<b>"), ("*a*", "\\*a\\*")],
)
def test_ordinary_names_stay_readable_in_markdown(written: str, expected: str):
    """Only what Markdown would obey is escaped."""
    assert escape_markdown(written) == expected
