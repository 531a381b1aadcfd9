"""What each stage of a tuning brings, over several seeds: sft, then preference and reward tuning on top of it.

    python -m benchmarks.stages [--quick] [--json FILE] [--pairs FOLDER]

FOLDER holds the pairs that `driftline prepare assistant` made; without it, the newest under the state folder. A seed
has a process of its own, which tunes as `tune` does and has the model answer every frozen evaluation pair, greedily and
unrounded. A stage's difference is from the sft stage of the same seed on the same pairs; its interval resamples
wordings. With a GPU the seeds run at once, and sft is also run on a base in four bits.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments, in_own_process, median

CASE = "assistant"
SEEDS = (0, 1, 2)
SHOWN = ("exact_match", "schema_validity", "hallucination_rate", "abstention_recall", "wrong_abstention_rate")
AT_ONCE = 120  # answers


def main() -> None:
    options = arguments("What each stage of a tuning brings.", pairs="folder of pairs; empty: the newest")
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    import torch

    from tasks.foundation.settings import settings

    seeds = SEEDS[:1] if options.quick else SEEDS
    pairs = options.pairs or max((settings().state / "pairs" / CASE).iterdir(), key=lambda each: each.stat().st_mtime)
    on_gpu = torch.cuda.is_available()
    asked: dict[str, Any] = {"pairs": str(pairs), "state": str(settings().state), "quick": options.quick}
    with ThreadPoolExecutor(len(seeds) if on_gpu else 1) as pool:
        found = list(pool.map(lambda seed: in_own_process("benchmarks.stages", seed=seed, **asked), seeds))
    report = Report(
        f"{CASE}: stages over seeds, {found[0]['n']} frozen pairs, {found[0]['precision']}",
        ["seed", "stage", *SHOWN, "exact match above sft (95 %)", "seconds"],
    )
    for seed, of in zip(seeds, found, strict=True):
        for name, one in of["stages"].items():
            if problem := one.get("problem"):
                report.row(seed, name, *["" for _ in SHOWN], problem, "")
                continue
            above = "{:+.3f} ({:+.3f} to {:+.3f})".format(*one["above"]) if "above" in one else ""
            report.row(seed, name, *(one["metrics"].get(each, float("nan")) for each in SHOWN), above, one["seconds"])
    for name in found[0]["stages"]:
        told = [of["stages"][name] for of in found if "metrics" in of["stages"][name]]
        if told:
            report.figure(f"{name}_exact_match", median([one["metrics"]["exact_match"] for one in told]))
            report.figure(f"{name}_seconds", median([one["seconds"] for one in told]))
        for figure in told[0]["gpu"] if told else ():
            report.figure(f"{name}_{figure}", median([one["gpu"].get(figure, 0.0) for one in told]))
    report.finish(["torch", "transformers", "peft", "trl"], options.json)


def measure(seed: int, pairs: str, state: str, quick: bool) -> dict[str, Any]:
    """Tune with one seed, stage by stage, and score the answers after each."""
    from tasks.foundation.settings import apply_environment, settings

    apply_environment(settings())
    import numpy as np
    import torch

    from flows.case import load
    from tasks.evaluate.compare import compare
    from tasks.train.language.model import read_pairs

    torch.set_num_threads(len(os.sched_getaffinity(0)) if not torch.cuda.is_available() else 4)
    case: Any
    preferring: Any
    rewarding: Any
    case, preferring, rewarding = (load(CASE, settings().cases, each) for each in (None, "preference", "reward"))
    few: dict[str, Any] = {"steps": 4} if quick else {}
    sft = case.train.stages.sft.model_copy(update=few)
    preference = preferring.train.stages.preference.model_copy(update=few | ({"pairs": 8} if quick else {}))
    reward = rewarding.train.stages.reward.model_copy(update=few)
    folder = Path(tempfile.mkdtemp(prefix="stages-"))
    work = work_of(case, seed, Path(pairs), Path(state), folder, quick)
    rows = read_pairs(Path(pairs) / "evaluation.parquet")[: 24 if quick else None]
    clusters = [row["template"] or row["pair_id"] for row in rows]
    ways: dict[str, tuple[str, Any, Mapping[str, Any]]] = {
        "sft": ("sft", sft, {}),
        "preference (DPO)": ("preference", preference, {}),
        "reward (GRPO, scorers)": ("reward", reward, {}),
        "reward (RLOO, scorers)": ("reward", reward.model_copy(update={"method": "rloo"}), {}),
        "reward (GRPO, a reward model)": ("reward", reward.model_copy(update={"reward": "model"}), {}),
    }
    if torch.cuda.is_available():
        ways["sft, nf4"] = ("sft", sft, {"quantize": "nf4"})
    found: dict[str, Any] = {}
    first: Any = None
    for number, (title, (name, stage, changes)) in enumerate(ways.items()):
        mine = replace(work, folder=folder / str(number), tuning=work.tuning.model_copy(update=changes))
        try:
            one = staged(name, stage, mine, None if name == "sft" else folder / "0" / "adapter", rows)
        except (RuntimeError, ValueError) as error:
            found[title] = {"problem": f"failed: {str(error).strip().splitlines()[-1][:160]}"}
            continue
        if one is None:
            found[title] = {"problem": "nothing to learn from: too few wrong answers"}
            continue
        exact = np.array([each.exact for each in one.pop("scores")], float)
        first = exact if first is None else first
        if title != "sft":
            seen = compare(exact, first, confidence=0.975, clusters=clusters)
            one["above"] = [seen.difference, seen.low, seen.high]
        found[title] = one
    return {"stages": found, "n": len(first), "precision": work.precision}


def work_of(case: Any, seed: int, pairs: Path, state: Path, folder: Path, quick: bool) -> Any:
    """What the case's stages are given."""
    from tasks.data.base.checkpoint import open_base
    from tasks.train.language.budget import Clock
    from tasks.train.language.model import arithmetic, read_pairs
    from tasks.train.language.work import Work

    return Work(
        base=open_base(case.model, case.folder, state),
        talk=case.talk,
        tuning=case.train.model_copy(update={"seed": seed}),
        serving=case.serve.model_copy(update={"answer_tokens": 8} if quick else {}),
        precision=arithmetic(case.train.precision),
        train=read_pairs(pairs / "train.parquet")[: 64 if quick else None],
        validation=read_pairs(pairs / "validation.parquet"),
        folder=folder,
        clock=Clock(folder / "seconds", None),
    )


def staged(name: str, stage: Any, work: Any, start: Path | None, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Train one stage from an adapter, as `tune` does; its scores on `rows`, seconds, and what the GPU did."""
    import torch

    from tasks.foundation.talk import message_of
    from tasks.train.language.answers import summarise
    from tasks.train.language.model import add_adapter, generate, load_adapter, load_base, render, save_adapter
    from tasks.train.language.rewards import scorer_of
    from tasks.train.language.stages import make_trainer
    from tasks.train.language.watch import Watch

    figures: list[dict[str, float]] = []
    watch = Watch(name, stage, lambda seen, _: figures.append(dict(seen)), lambda *_: {}, lambda _: None)
    model = load_base(work.base, work.precision, work.tuning.attention, work.tuning.quantize)
    model = (
        load_adapter(model, start, trainable=True) if start else add_adapter(model, work.tuning.lora, work.tuning.seed)
    )
    begun = time.perf_counter()
    trainer = make_trainer(name, stage, work, model, watch)
    if trainer is None:
        return None
    trainer.train()
    seconds = time.perf_counter() - begun
    save_adapter(trainer.model, work.folder / "adapter", work.base)
    asked = [render(work.tokenizer, work.talk.prompt.system, row["messages"]) for row in rows]
    said = generate(
        trainer.model, work.tokenizer, asked, work.serving.answer_tokens, batch=AT_ONCE, precision=work.precision
    )
    scorer = scorer_of(work.talk.answer)
    scores = [scorer.score(text, r["answer"], message_of(r["messages"])) for text, r in zip(said, rows, strict=True)]
    gpu = [each for each in figures if "gpu_watts" in each]
    del trainer, model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {
        "metrics": summarise(scores),
        "scores": scores,
        "seconds": seconds,
        "gpu": {
            "gpu_energy_wh": gpu[-1]["gpu_energy_wh"],
            "gpu_utilization": median([each["gpu_utilization"] for each in gpu]),
            "gpu_memory_gb": max(each["gpu_memory_gb"] for each in gpu),
        }
        if gpu
        else {},
    }


if __name__ == "__main__":
    main()
