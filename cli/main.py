"""The command line: one verb a flow, and a few to look and to run things."""

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

from cli import stack, traffic
from cli.keys import app as keys
from cli.options import AsJson, CaseName
from cli.replay import replay
from tasks.core.display import escape_terminal
from tasks.core.errors import DriftlineError, InputError
from tasks.core.processes import tune_gc

app = typer.Typer(
    name="driftline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From raw data to a gated, packaged, monitored service that retrains itself when the world drifts.",
)

AsOf = Annotated[
    str | None, typer.Option(metavar="DATE", help="The moment to pretend to be at, UTC. Default: the case's, or now.")
]
Profile = Annotated[str | None, typer.Option(help="A profile of the case, such as smoke.")]


def main() -> None:
    """Run the command line, and leave with its exit code."""
    tune_gc()
    code = answer()
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()  # while Prefect's server, which ends with us, still takes its logs: else they wait 5 s for it
    atexit._run_exitfuncs()
    # not by sys.exit: after an error, which keeps its frames alive, DuckDB would follow our message with forty lines
    # about leaked references; and taking 2,000 modules down takes half a second
    os._exit(code)


def answer() -> int:
    """Run what sys.argv names; an error of ours ends with its message and exit code, not with a traceback."""
    from tasks.core.settings import apply_environment, settings

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: else Prefect's own server would outlive us
    try:
        if not {"--help", "-h"} & set(sys.argv[1:]) and len(sys.argv) > 1:
            apply_environment(settings())
        app(standalone_mode=True)
    except DriftlineError as error:
        typer.secho(f"\n{escape_terminal(str(error))}", fg="red", err=True)
        for note in getattr(error, "__notes__", []):
            typer.echo(note, err=True)
        return error.exit_code
    except KeyboardInterrupt:
        typer.secho("\nStopped. Start the same command again: finished steps are kept.", fg="yellow", err=True)
        return 130
    except SystemExit as end:  # how typer ends, well or with 2 after a usage error
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.command()
def new(
    case: Annotated[str, typer.Argument(metavar="CASE", help="Its name, of a folder under configs/ that is to be.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help=".csv, .parquet, .jsonl")],
    target: Annotated[
        str | None, typer.Option(help="Column to predict. Without: a .jsonl file of messages and their answers.")
    ] = None,
    key: Annotated[
        list[str],
        typer.Option(help="Column that names a row; or several. Default: the first one, or an id, if it does."),
    ] = [],  # noqa: B006
    time: Annotated[
        str | None, typer.Option(help="Column of each row's moment: the last ones judge the model.")
    ] = None,
) -> None:
    """Begin a case from your data: writes its case.yaml, which runs as it is and is yours to change."""
    from cli.new import new as begin

    typer.echo(begin(case, file, target, key, time))


@app.command()
def validate(case: CaseName, profile: Profile = None) -> None:
    """Check a case without starting anything: keys, types, bounds, SQL files, sources, expectations, estimator."""
    from cli.check import check

    typer.echo(check(case, profile))


@app.command()
def prepare(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Sources to a validated snapshot in DVC."""
    _run("prepare", case, as_of, profile)


@app.command()
def train(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Prepare, features, a trained candidate and its verdict. Exit code 3 unless the verdict is to promote."""
    trained = _run("train", case, as_of, profile)

    from tasks.release.task import require_promotion

    require_promotion(case, trained.verdict)


@app.command()
def run(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """The whole chain: prepare, features, train, judge, release. Exit code 3 when a gate fails."""
    _run("release", case, as_of, profile)


app.command(name="release", help="The same as run: finished steps come from cache, so only the release is left.")(run)


@app.command(name="import")
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
    """Like run, with a model made elsewhere in place of training: judged, sealed and served the same way."""
    _run("release", case, as_of, profile, path)


@app.command()
def predict(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """The champion's answers for everything since its release, as partitioned Parquet."""
    _run("predict", case, as_of, profile)


@app.command()
def monitor(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Measure the champion against the outcomes that have arrived, and decide what is done about it."""
    _run("monitor", case, as_of, profile)


@app.command()
def retrain(case: CaseName, as_of: AsOf = None, profile: Profile = None) -> None:
    """Monitor, and do what is decided: retrain, calibrate anew or roll back; a challenger against the champion."""
    _run("retrain", case, as_of, profile)


@app.command()
def show(
    case: CaseName,
    release: Annotated[str | None, typer.Option(help="Digest, or its beginning. Default: the champion.")] = None,
    json: AsJson = False,
) -> None:
    """The manifest, metrics and verdict of the champion or another release."""
    from cli.show import show_release

    show_release(case, release, json)


@app.command()
def chat(
    case: CaseName,
    release: Annotated[str | None, typer.Option(help="Digest, or its beginning. Default: the champion.")] = None,
    compare: Annotated[
        Literal["base"] | None,
        typer.Option(help="base: the untuned model answers too, told the schema."),
    ] = None,
) -> None:
    """Ask a language model from the terminal, or through a pipe: one message a line."""
    from cli.chat import chat as talk

    talk(case, release, compare == "base")


@app.command()
def vllm(
    releases: Annotated[
        list[str],
        typer.Argument(metavar="CASE[:DIGEST]...", help="Releases of one base. Without digest: the champion."),
    ],
) -> None:
    """Print what starts a vLLM server, on a GPU and in its own environment, for releases with `engine: vllm`."""
    from cli.show import show_vllm

    show_vllm(releases)


@app.command()
def pin(case: CaseName) -> None:
    """Write the champion's snapshot pointer under data/, to commit; `dvc pull` brings the data back elsewhere."""
    from cli.show import pin_snapshot

    pin_snapshot(case)


@app.command()
def demo(
    case: CaseName, months: Annotated[int, typer.Option(min=1, max=120, help="Months to monitor at most.")] = 6
) -> None:
    """The stack, the whole chain, then month after month until the model has aged and is retrained."""
    from cli.demo import demo as play

    play(case, months)


def _run(flow: str, case: str, as_of: str | None, profile: str | None, model: Path | None = None) -> Any:
    from cli.terminal import run_flow_with_progress

    return run_flow_with_progress(flow, case, _moment(as_of), profile, model=model)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            "The as-of is no date.", where="--as-of", found=text, allowed="2013-04-01 or 2013-04-01T12:00:00+00:00"
        ) from error
    return read if read.tzinfo else read.replace(tzinfo=UTC)


app.command()(replay)
app.add_typer(traffic.app)
app.add_typer(keys, name="keys", rich_help_panel=traffic.PANEL)
app.add_typer(stack.app)

if __name__ == "__main__":
    main()
