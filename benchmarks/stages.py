"""What each stage of a tuning brings, over several seeds: sft, then preference and reward tuning on top of it.

    python -m benchmarks.stages [--quick] [--json FILE] [--pairs FOLDER]

FOLDER holds the pairs that `driftline prepare assistant` made; without it, the newest under the state folder. Each
stage of a seed has a process of its own, which tunes as `tune` does and has the model answer every frozen evaluation
pair, greedily and unrounded. A stage's difference is from the sft stage of the same seed on the same pairs; its
interval resamples wordings. Beside seconds and memory stands what was foreseen of them before anything was loaded. With
a GPU the seeds run at once, and sft is also run on a base in four bits.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments, in_own_process, median, peak_memory

CASE = "assistant"
SEEDS = (0, 1, 2)
SHOWN = ("exact_match", "schema_validity", "hallucination_rate", "abstention_recall", "wrong_abstention_rate")
AT_ONCE = 120  # answers
WAYS: dict[str, dict[str, str]] = {  # the stage, and what is changed of it
    "sft": {"stage": "sft"},
    "preference_dpo": {"stage": "preference"},
    "reward_grpo": {"stage": "reward"},
    "reward_rloo": {"stage": "reward", "method": "rloo"},
    "reward_grpo_model": {"stage": "reward", "reward": "model"},
}
FOUR_BITS = {"sft_nf4": {"stage": "sft", "quantize": "nf4"}}


def main() -> int:
    options = arguments("What each stage of a tuning brings.", pairs="folder of pairs; empty: the newest")
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return 0
    import torch

    from tasks.core.settings import settings
    from tasks.train.language.model import supported_precision

    seeds = SEEDS[:1] if options.quick else SEEDS
    pairs = options.pairs or newest_pairs(settings().state / "pairs" / CASE)
    if not pairs:
        print(f"There are no pairs yet: run `driftline prepare {CASE}`, or name a folder by --pairs.", file=sys.stderr)
        return 2
    on_gpu = torch.cuda.is_available()
    ways = WAYS | (FOUR_BITS if on_gpu else {})
    common: dict[str, Any] = {"pairs": str(pairs), "state": str(settings().state), "quick": options.quick}
    report = Report(
        f"{CASE}: stages over seeds, {supported_precision('bf16')}",
        ["seed", "stage", *SHOWN, "exact match above sft (95 %)", "seconds (foreseen)", "GB (foreseen)"],
    )

    def all_stages(seed: int) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        with tempfile.TemporaryDirectory(prefix="stages-") as folder:
            for title in ways:
                one = in_own_process("benchmarks.stages", seed=seed, folder=folder, title=title, **common)
                if problem := one.get("problem"):
                    report.row(seed, title, *["" for _ in SHOWN], problem, "", "")
                    continue
                found[title] = one
                metrics = [one["metrics"].get(each, float("nan")) for each in SHOWN]
                report.row(seed, title, *metrics, above(one, found["sft"]), *beside_foreseen(one))
        return found

    with ThreadPoolExecutor(len(seeds) if on_gpu else 1) as pool:
        found = list(pool.map(all_stages, seeds))
    for title in ways:
        results = [of[title] for of in found if title in of]
        if results:
            report.figure(f"{title}_exact_match", median([one["metrics"]["exact_match"] for one in results]))
            report.figure(f"{title}_seconds", median([one["seconds"] for one in results]))
            report.figure(f"{title}_memory_gb", median([one["memory_gb"] for one in results]))
        for figure in results[0]["gpu"] if results else ():
            report.figure(f"{title}_{figure}", median([one["gpu"].get(figure, 0.0) for one in results]))
    report.finish(["torch", "transformers", "peft", "trl"], options.json)
    return 0


def newest_pairs(folder: Path) -> Path | None:
    paths = sorted(folder.glob("*/checked.json"), key=lambda each: each.stat().st_mtime)
    return paths[-1].parent if paths else None


def above(one: dict[str, Any], sft: dict[str, Any]) -> str:
    """How much more often a stage's answers are right than those of sft."""
    import numpy as np

    from tasks.statistics.bootstrap import paired_bootstrap

    if one is sft:
        return ""
    exact, before = np.array(one["exact"], float), np.array(sft["exact"], float)
    seen = paired_bootstrap(exact, before, confidence=0.975, clusters=one["clusters"])
    return f"{seen.difference:+.3f} ({seen.low:+.3f} to {seen.high:+.3f})"


def beside_foreseen(one: dict[str, Any]) -> tuple[str, str]:
    """Seconds and memory of a stage, each with what was foreseen."""
    seconds, memory = one["seconds"], one["gpu"].get("gpu_memory_gb", one["memory_gb"])
    foreseen = one["foreseen"]
    return f"{seconds:.0f} ({60 * foreseen['minutes']:.0f})", f"{memory:.1f} ({foreseen['memory_gb']:.1f})"


def measure(seed: int, title: str, folder: str, pairs: str, state: str, quick: bool) -> dict[str, Any]:
    """Tune one stage of `WAYS` with one seed, on top of the seed's sft stage, and score its answers.

    When that fails, the result has only `problem`.
    """
    from tasks.core.settings import apply_environment, settings

    apply_environment(settings())
    import torch

    from flows.case import load_case
    from tasks.train.language.model import read_pairs
    from tasks.train.language.preflight import TuningPlan, check_fit

    torch.set_num_threads(len(os.sched_getaffinity(0)) if not torch.cuda.is_available() else 4)
    changed = dict((WAYS | FOUR_BITS)[title])
    stage = changed.pop("stage")
    case: Any = load_case(CASE, settings().cases, None if stage == "sft" else stage)
    few: dict[str, Any] = {"steps": 4} | ({"pairs": 8} if stage == "preference" else {}) if quick else {}
    of_tuning = {key: value for key, value in changed.items() if key == "quantize"}
    of_stage = {key: value for key, value in changed.items() if key != "quantize"}
    declared = getattr(case.train.stages, stage).model_copy(update=few | of_stage)
    work = work_of(case, seed, Path(pairs), Path(state), Path(folder) / title, quick)
    stages = case.train.stages.model_copy(update={stage: declared})
    work = replace(work, tuning=work.tuning.model_copy(update=of_tuning | {"stages": stages}))
    rows = read_pairs(Path(pairs) / "evaluation.parquet")[: 24 if quick else None]
    try:
        examples, answer_tokens = work.examples(work.train), work.spec.serving.answer_tokens
        foreseen = check_fit(TuningPlan(work.spec.base, work.tuning, work.precision, examples), answer_tokens)[stage]
        one = staged(stage, declared, work, None if stage == "sft" else Path(folder) / "sft" / "adapter", rows)
    except (RuntimeError, ValueError) as error:
        return {"problem": f"failed: {str(error).strip().splitlines()[-1][:160]}"}
    if one is None:
        return {"problem": "nothing to learn from: too few wrong answers"}
    one["exact"] = [bool(each.exact) for each in one.pop("scores")]
    one.pop("texts")
    clusters = [row["template"] or row["pair_id"] for row in rows]
    return one | {"clusters": clusters, "foreseen": foreseen.model_dump()}


def work_of(case: Any, seed: int, pairs: Path, state: Path, folder: Path, quick: bool) -> Any:
    """What the case's stages are given."""
    from tasks.data.language.base_model import open_base
    from tasks.train.language.model import read_pairs, supported_precision
    from tasks.train.language.stage_context import StageContext
    from tasks.train.language.time_budget import TrainingClock
    from tasks.train.results import LanguageSpec

    return StageContext(
        spec=LanguageSpec(
            base=open_base(case.model, case.folder, state),
            chat=case.chat_spec,
            serving=case.serve.model_copy(update={"answer_tokens": 8} if quick else {}),
        ),
        tuning=case.train.model_copy(update={"seed": seed}),
        precision=supported_precision(case.train.precision),
        train=read_pairs(pairs / "train.parquet")[: 64 if quick else None],
        validation=read_pairs(pairs / "validation.parquet"),
        folder=folder,
        clock=TrainingClock(folder / "seconds", None),
    )


def staged(name: str, stage: Any, work: Any, start: Path | None, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Train one stage from an adapter, as `tune` does; its scores on `rows`, seconds, and what the GPU did."""
    import torch

    from tasks.data.language.scorer import scorer_of
    from tasks.language.answer_scoring import summarise
    from tasks.language.messages import user_message
    from tasks.train.compat import plain_torch_logprobs
    from tasks.train.language.model import (
        GenerationSettings,
        add_adapter,
        generate,
        load_adapter,
        load_base,
        render,
        save_adapter,
    )
    from tasks.train.language.stages import make_trainer
    from tasks.train.language.trainer_callbacks import ProgressCallback

    figures: list[dict[str, float]] = []
    watch = ProgressCallback(name, stage, lambda seen, _: figures.append(dict(seen)), lambda *_: {}, lambda _: None)
    model = load_base(work.spec.base, work.precision, work.tuning.attention, work.tuning.quantize)
    model = (
        load_adapter(model, start, trainable=True) if start else add_adapter(model, work.tuning.lora, work.tuning.seed)
    )
    begun = time.perf_counter()
    with plain_torch_logprobs():
        trainer = make_trainer(name, stage, work, model, watch)
        if trainer is None:
            return None
        trainer.train()
    seconds, memory = time.perf_counter() - begun, peak_memory() / 1024
    save_adapter(trainer.model, work.folder / "adapter", work.spec.base)
    prompts = [render(work.tokenizer, work.turns(row)) for row in rows]
    settings = GenerationSettings(work.spec.serving.answer_tokens, batch=AT_ONCE, precision=work.precision)
    answers = generate(trainer.model, work.tokenizer, prompts, settings)
    scorer = scorer_of(work.spec.chat.answer)
    scores = [
        scorer.score(text, r["answer"], user_message(r["messages"])) for text, r in zip(answers, rows, strict=True)
    ]
    gpu = [each for each in figures if "gpu_watts" in each]
    del trainer, model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {
        "metrics": summarise(scores),
        "scores": scores,
        "texts": answers,
        "seconds": seconds,
        "memory_gb": memory,
        "gpu": {
            "gpu_energy_wh": gpu[-1]["gpu_energy_wh"],
            "gpu_utilization": median([each["gpu_utilization"] for each in gpu]),
            "gpu_memory_gb": max(each["gpu_memory_gb"] for each in gpu),
        }
        if gpu
        else {},
    }


if __name__ == "__main__":
    sys.exit(main())
