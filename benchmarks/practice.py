"""What tuning on other documents brings to short answers with citations, over three seeds: sft, then DPO on top of it.

    python -m benchmarks.practice [--quick] [--json FILE] [--pairs FOLDER]

FOLDER holds practice pairs, as `driftline run handbook --profile tuned` makes them; without it, the newest under the
state folder. Each stage of each seed answers the same practice pairs that nothing was trained on. A
difference is from sft of the same seed, over all seeds; its interval resamples questions.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.stages import staged, work_of
from benchmarks.table import Report, arguments, in_own_process

CASE, PROFILE = "handbook", "tuned"
SEEDS = (0, 1, 2)
TRAINED = 64  # pairs to train on, half of the profile's: a seed takes minutes
PREFERENCE = {"batch": 4, "pairs": 32, "learning_rate": 5e-5}
MEASURED = ("cited", "abstained", "token_f1", "words")
CITED = re.compile(r"\[(\d+)\]")


def main() -> int:
    options = arguments("What tuning on other documents brings.", pairs="folder of pairs; empty: the newest")
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return 0
    from tasks.core.settings import settings

    pairs = options.pairs or newest(settings().state / "practice" / CASE)
    if not pairs:
        print(f"There are no pairs yet: run `driftline run {CASE} --profile {PROFILE}`.", file=sys.stderr)
        return 2
    common: dict[str, Any] = {"pairs": str(pairs), "state": str(settings().state), "quick": options.quick}
    report = Report("practice: stages over seeds", ["seed", "stage", *MEASURED, "seconds"])
    results: dict[str, list[dict[str, Any]]] = {"sft": [], "preference": []}
    with tempfile.TemporaryDirectory(prefix="practice-") as folder:
        for seed in SEEDS[:1] if options.quick else SEEDS:
            for stage, done in results.items():
                one = in_own_process("benchmarks.practice", seed=seed, stage=stage, folder=f"{folder}/{seed}", **common)
                done.append(one)
                report.row(seed, stage, *(mean(one["rows"], name) for name in MEASURED), one["seconds"])
    for name in MEASURED:
        for stage, done in results.items():
            report.figure(f"{stage}_{name}", sum(mean(one["rows"], name) for one in done) / len(done))
        low, high = difference(results, name)
        report.figure(f"preference_{name}_above_sft_low", low)
        report.figure(f"preference_{name}_above_sft_high", high)
    report.finish(["torch", "transformers", "peft", "trl"], options.json)
    return 0


def newest(folder: Path) -> Path | None:
    paths = sorted(folder.glob("*/train.parquet"), key=lambda each: each.stat().st_mtime)
    return paths[-1].parent if paths else None


def mean(rows: list[dict[str, float | None]], name: str) -> float:
    """The mean over the questions that a figure applies to."""
    values = [value for row in rows if (value := row[name]) is not None]
    return sum(values) / len(values) if values else float("nan")


def difference(results: dict[str, list[dict[str, Any]]], name: str) -> tuple[float, float]:
    """The 95 % interval of how far preference tuning lies above sft; a question of all seeds is one cluster."""
    import numpy as np

    from tasks.statistics.bootstrap import ratio_interval

    values, clusters = [], []
    for before, after in zip(results["sft"], results["preference"], strict=True):
        for at, (one, other) in enumerate(zip(before["rows"], after["rows"], strict=True)):
            if one[name] is not None:
                values.append(other[name] - one[name])
                clusters.append(str(at))
    bounds = ratio_interval(np.array(values), np.ones(len(values)), clusters)
    return bounds or (float("nan"), float("nan"))


def measure(seed: int, stage: str, folder: str, pairs: str, state: str, quick: bool) -> dict[str, Any]:
    """Tune one stage, sft from the base or preference from sft's adapter, and measure each held-out answer."""
    from tasks.core.settings import apply_environment, settings

    apply_environment(settings())
    from flows.case import load_case
    from tasks.train.config import Preference
    from tasks.train.language.model import read_pairs

    case: Any = load_case(CASE, settings().cases, PROFILE)
    work = work_of(case, seed, Path(pairs), Path(state), Path(folder) / stage, quick)
    few = {"steps": 2} | ({"pairs": 8} if stage == "preference" else {}) if quick else {}
    declared = case.train.stages.sft if stage == "sft" else Preference(**PREFERENCE)
    declared = declared.model_copy(update=few)
    tuning = work.tuning.model_copy(update={"stages": case.train.stages})
    work = replace(work, tuning=tuning, train=work.train[:TRAINED])
    rows = read_pairs(Path(pairs) / "validation.parquet")[: 4 if quick else None]
    one = staged(stage, declared, work, None if stage == "sft" else Path(folder) / "sft" / "adapter", rows)
    if one is None:
        raise RuntimeError("there is nothing to learn from")
    abstention = str(case.answer.abstain)
    measured = [
        row_of(text, row["answer"], score, abstains=row["answer"] == abstention)
        for text, row, score in zip(one["texts"], rows, one["scores"], strict=True)
    ]
    return {"rows": measured, "seconds": one["seconds"]}


def row_of(text: str, answer: str, score: Any, *, abstains: bool) -> dict[str, float | None]:
    """The figures of an answer: whether it cites the right passage alone, whether it abstains where it should."""
    return {
        "cited": None if abstains else float(set(CITED.findall(text)) == set(CITED.findall(answer))),
        "abstained": float(bool(score.abstained) == abstains),
        "token_f1": score.token_f1,
        "words": float(len(text.split())),
    }


if __name__ == "__main__":
    sys.exit(main())
