"""The same steps without Prefect's server, for `dvc repro`: python -m flows.dvc_stages prepare|train CASE OUT.json"""

from __future__ import annotations

import sys
from pathlib import Path

from flows.run_context import Request, RunContext, run_context
from tasks.core.config import canonical_json
from tasks.core.display import escape_terminal
from tasks.core.errors import DriftlineError
from tasks.core.files import write_text
from tasks.core.settings import apply_environment, settings


def main(stage: str, case: str, out: Path) -> None:
    """Run a stage, and write what identifies its output: digests, numbers of rows, metrics."""
    apply_environment(settings())
    with run_context(Request(case=case)) as run:
        write_text(out, canonical_json({"prepare": _prepare, "train": _train}[stage](run)) + "\n")


def _prepare(run: RunContext) -> dict[str, object]:
    from flows.steps import prepare_snapshot

    snapshot = prepare_snapshot(run)
    return {"digest": snapshot.digest, "rows": snapshot.rows, "quarantined": snapshot.quarantined}


def _train(run: RunContext) -> dict[str, object]:
    from flows.steps import prepare_snapshot, train_and_evaluate

    trained = train_and_evaluate(run, prepare_snapshot(run))
    return {
        "weights": trained.candidate.weights_digest,
        "decision": trained.verdict.decision,
        **trained.verdict.metrics["overall"],
    }


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    except DriftlineError as error:
        print(escape_terminal(str(error)), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
