"""The command line: one command per flow, and commands to inspect and operate."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli import evidence, stack, traffic
from cli.backtest import backtest
from cli.guard import app as guard
from cli.keys import app as keys
from cli.knowledge import app as knowledge
from cli.new import app as new
from cli.options import AsJson, CaseName, Release
from cli.prompt import app as prompt
from cli.search import app as search
from cli.verbs import Verbs
from tasks.core.display import escape_terminal
from tasks.core.errors import DriftlineError, InputError
from tasks.core.processes import tune_gc

app = typer.Typer(
    cls=Verbs,
    name="driftline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From raw data to a gated, packaged, monitored service that retrains itself when the world drifts.",
)

AsOf = Annotated[str | None, typer.Option(metavar="DATE", help="As-of time in UTC. Default: the case's own, or now.")]
Profile = Annotated[str | None, typer.Option(help="Profile of the case, for example smoke.")]


def main() -> None:
    """Run the command line and exit with its code."""
    tune_gc()
    code = run_command()
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()  # while Prefect's server still accepts logs: after it ends, they wait 5 s for it
    atexit._run_exitfuncs()
    # not sys.exit: after an error DuckDB would print forty lines about leaked references, and unloading 2,000 modules
    # takes half a second
    os._exit(code)


def run_command() -> int:
    """Run the command in sys.argv; a DriftlineError prints its message, not a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: else Prefect's server would survive
    try:
        if not {"--help", "-h"} & set(sys.argv[1:]) and len(sys.argv) > 1:
            from tasks.core.settings import apply_environment, settings

            apply_environment(settings())
        app(standalone_mode=True)
    except DriftlineError as error:
        if not error.exit_code:
            typer.echo(f"\n{escape_terminal(str(error))}")
            return 0
        typer.secho(f"\n{escape_terminal(str(error))}", fg="red", err=True)
        for note in getattr(error, "__notes__", []):
            typer.echo(note, err=True)
        return error.exit_code
    except KeyboardInterrupt:
        typer.secho("\nStopped. Run the same command again: finished steps come from cache.", fg="yellow", err=True)
        return 130
    except SystemExit as end:  # typer ends this way, with 0 or with 2 after a usage error
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


app.add_typer(new)


@app.command()
def validate(case: CaseName, profile: Profile = None) -> None:
    """Check a case without running it: keys, types, bounds, SQL, sources, expectations and estimator."""
    from cli.check import check

    typer.echo(check(case, profile))


@app.command()
def prepare(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Validate the sources and store a snapshot in DVC."""
    from tasks.data.results import Snapshot

    snapshot = _run("prepare", case, as_of, profile)
    if isinstance(snapshot, Snapshot):
        typer.echo(f"data card  {snapshot.card}")


@app.command()
def train(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Prepare, train a candidate and evaluate it. Exit code 3: it is rejected; 7: the evidence is insufficient."""
    trained = _run("train", case, as_of, profile)

    from tasks.release.task import require_promotion

    require_promotion(case, trained.verdict)


@app.command()
def run(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Run the whole pipeline: prepare, train, evaluate, release. Exit code 3 or 7: it is not promoted."""
    _release(case, as_of, profile)


@app.command(name="import-model")
def import_model(
    case: CaseName,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            exists=True,
            resolve_path=True,
            help="A .skops file of a scikit-learn model; for a language case the folder of a LoRA adapter.",
        ),
    ],
    as_of: AsOf = None,
    profile: Profile = None,
) -> None:
    """Run the pipeline with an external model instead of training: same evaluation, seal and serving."""
    _release(case, as_of, profile, path)


@app.command()
def predict(
    case: CaseName,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", exists=True, dir_okay=False, help="Rows to score, in the form of the source."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the answers go: .csv, .parquet, .jsonl. Default: FILE.predictions.csv.")
    ] = None,
    as_of: AsOf = None,
    profile: Profile = None,
) -> None:
    """Score the rows of a file; without FILE, write the champion's predictions since its release as Parquet."""
    if file is None:
        _run("predict", case, as_of, profile)
        return
    from cli.predict_file import predict_file

    predict_file(case, file, out, profile)


@app.command()
def monitor(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Measure drift and performance of the champion, and decide what to do."""
    from cli.questions import print_open_questions

    _run("monitor", case, as_of, profile)
    print_open_questions(case)


@app.command()
def outcomes(
    case: CaseName,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="With the key and the target.")
    ],
) -> None:
    """Store what turned out to be true of rows of a table without time; `monitor` then measures by it."""
    from cli.outcomes import outcomes as bring_outcomes

    bring_outcomes(case, file)


@app.command()
def retrain(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Monitor, then act on the decision: retrain, recalibrate or roll back."""
    _run("retrain", case, as_of, profile)


app.command()(backtest)


@app.command()
def show(case: CaseName, release: Release = None, json: AsJson = False) -> None:
    """Show the manifest, metrics and verdict of a release."""
    from cli.show import show_release

    show_release(case, release, json)


@app.command()
def chat(
    case: CaseName,
    release: Release = None,
    compare_base: Annotated[bool, typer.Option("--compare-base", help="The base model answers too.")] = False,
    compare: Annotated[Literal["base"] | None, typer.Option(hidden=True, help="Old form of --compare-base.")] = None,
) -> None:
    """Chat with a language model: one message per line, from the terminal or a pipe."""
    from cli.chat import chat as start_chat

    if compare:
        _warn_renamed("--compare base", "--compare-base")
    start_chat(case, release, compare_base or compare == "base")


@app.command()
def ask(
    case: CaseName,
    question: Annotated[str, typer.Argument(help="The question, in quotation marks.")],
    release: Release = None,
) -> None:
    """Answer a question from the documents of a case, with links; the stack need not run."""
    from cli.ask import ask as answer_question

    answer_question(case, question, release)


@app.command()
def vllm(
    releases: Annotated[
        list[str],
        typer.Argument(metavar="CASE[:DIGEST]...", help="Releases of one base model. Default digest: the champion."),
    ],
) -> None:
    """Print the command that serves releases with `engine: vllm` on a vLLM server."""
    from cli.show import show_vllm

    show_vllm(releases)


@app.command()
def remove(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case, even one whose folder is gone.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation.")] = False,
    config: Annotated[bool, typer.Option("--config", help="Delete its folder under configs/, too.")] = False,
) -> None:
    """Stop serving a case and delete its data, candidates and releases; usage records and audit events stay."""
    from cli.remove import remove as remove_case

    remove_case(case, yes=yes, config_too=config)


@app.command()
def demo(
    case: CaseName,
    months: Annotated[int, typer.Option(min=1, max=120, help="Most months to monitor.")] = 6,
    profile: Profile = None,
) -> None:
    """Start the stack, run the pipeline, then monitor month by month until the model is retrained."""
    from cli.demo import demo as run_demo

    run_demo(case, months, profile)


snapshot = typer.Typer(no_args_is_help=True, help="Manage data snapshots.")
app.add_typer(snapshot, name="snapshot")


@snapshot.command()
def pin(case: CaseName) -> None:
    """Write the champion's DVC pointer under data/, to commit; `dvc pull` then restores its data."""
    from cli.show import pin_snapshot

    pin_snapshot(case)


@app.command(name="release", hidden=True)
def release_alias(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Old name of `run`."""
    _warn_renamed("release", "run")
    run(case, as_of, profile)


@app.command(name="import", hidden=True)
def import_alias(
    case: CaseName,
    path: Annotated[Path, typer.Argument(metavar="PATH", exists=True, resolve_path=True)],
    as_of: AsOf = None,
    profile: Profile = None,
) -> None:
    """Old name of `import-model`."""
    _warn_renamed("import", "import-model")
    import_model(case, path, as_of, profile)


@app.command(name="pin", hidden=True)
def pin_alias(case: CaseName) -> None:
    """Old name of `snapshot pin`."""
    _warn_renamed("pin", "snapshot pin")
    pin(case)


app.command(name="replay", hidden=True, help="Old name of `backtest`.")(backtest)
app.add_typer(prompt, name="prompt")
app.add_typer(search, name="search")
app.add_typer(traffic.app)
app.add_typer(evidence.app)
app.add_typer(keys, name="keys", rich_help_panel=traffic.PANEL)
app.add_typer(guard, name="guard")
app.add_typer(knowledge, name="knowledge")
app.add_typer(stack.app)


def _warn_renamed(old: str, new: str) -> None:
    typer.secho(f"`{old}` is now called `{new}`; the old name still works.", fg="yellow", err=True)


def _run(flow: str, case: str, as_of: str | None, profile: str | None, model: Path | None = None) -> Any:
    from cli.terminal import run_flow_with_progress

    return run_flow_with_progress(flow, case, parse_as_of(as_of), profile, model=model)


def _release(case: str, as_of: str | None, profile: str | None, model: Path | None = None) -> None:
    from cli.request_example import print_request
    from tasks.release.results import Release as Released

    release = _run("release", case, as_of, profile, model)
    if isinstance(release, Released) and release.kind == "tabular":
        print_request(release)


def parse_as_of(text: str | None) -> datetime | None:
    """The moment that --as-of names; UTC unless it names a zone.

    Raises: InputError when it is not a date.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            "The as-of is not a date.", where="--as-of", found=text, allowed="2013-04-01 or 2013-04-01T12:00:00+00:00"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    main()
