"""One thin layer over trl's trainers: what all stages share is said once, what is particular in a function each."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.data.config import Answer, Prompt
from tasks.data.results import Base
from tasks.foundation.errors import CaseError
from tasks.foundation.files import write_text
from tasks.foundation.talk import MODEL, SYSTEM, turn
from tasks.train.config import Preference, Reward, Serving, Sft, Stage, Tuning
from tasks.train.language import Example, Precision, encode, generate, open_tokenizer, render
from tasks.train.rewards import message_of, scorer_of, verifiable

Rows = list[dict[str, Any]]
TEMPERATURE = 1.0  # at which the model shows its wrong answers


@dataclass(frozen=True)
class Work:
    """What every stage of one tuning is given."""

    base: Base
    prompt: Prompt
    answer: Answer
    tuning: Tuning
    serving: Serving
    precision: Precision
    train: Rows
    validation: Rows
    folder: Path  # checkpoints, and each stage's adapter; outlives a killed process

    @cached_property
    def tokenizer(self) -> Any:
        return open_tokenizer(self.base)

    def examples(self, rows: Rows) -> list[Example]:
        """Pairs as token ids."""
        return [encode(self.tokenizer, self.prompt.system, row["messages"], row["answer"]) for row in rows]

    def turns(self, row: dict[str, Any]) -> list[dict[str, str]]:
        """A row's message behind the system prompt."""
        return [turn(SYSTEM, self.prompt.system), *row["messages"]]

    def answers(self, model: Any, rows: Rows, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """What the model says to these rows."""
        prompts = [render(self.tokenizer, self.prompt.system, row["messages"]) for row in rows]
        return generate(
            model,
            self.tokenizer,
            prompts,
            self.serving.answer_tokens,
            temperature=temperature,
            seed=seed,
            precision=self.precision,
        )


def order(examples: int, batch: int, steps: int, seed: int) -> list[int]:
    """Which example comes when: shuffled passes, settled here once, so that a resumed run reads on where it stopped.

    Batches of like lengths would pad less, but where an intent's answers are short they hold that intent alone, and the
    model swings from one to the other: half of the validation pairs right instead of 94 %.
    """
    chance = random.Random(seed)
    passes = math.ceil(steps * batch / examples)
    return [i for _ in range(passes) for i in chance.sample(range(examples), examples)][: steps * batch]


def steps_of(stage: Stage, examples: int) -> int:
    """Optimizer steps of a stage."""
    return stage.steps or max(1, math.ceil(stage.epochs * examples / stage.batch))


def make_trainer(name: str, stage: Stage, work: Work, model: Any, watch: Any) -> Any | None:
    """A stage's trainer, ready to train; None when there is nothing to learn from."""
    import trl.trainer.utils
    from transformers import PrinterCallback

    # trl scores only the positions that carry a label, and all of them where Triton is not: on a CPU the output layer,
    # a fifth of a small model, would then run over each prompt too. Its formula is the same either way.
    trl.trainer.utils._use_triton = lambda device: True
    make: Any = {"sft": _sft, "preference": _preference, "reward": _reward}[name]
    trainer = make(stage, work, model, watch)
    if trainer is not None:
        trainer.remove_callback(PrinterCallback)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # trl makes them bf16 on a base in four bits
                parameter.data = parameter.data.float()
    return trainer


def _shared(name: str, stage: Stage, work: Work) -> dict[str, Any]:
    """The arguments of every trainer."""
    import os

    import torch

    on_gpu = torch.cuda.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as accelerate starts them
    micro = stage.micro_batch or max(1, stage.batch // processes)
    if stage.batch % (micro * processes):
        raise CaseError(
            "The batch does not divide into its parts.",
            where=f"train.stages.{name}.micro_batch",
            found=f"batch {stage.batch}, micro_batch {micro}, {processes} process(es)",
            allowed="a batch that is a multiple of micro_batch x processes",
            todo="Change one of them.",
        )
    return {
        "output_dir": str(work.folder / name),
        "num_train_epochs": 1,  # `order` has put all passes into one
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": stage.batch // (micro * processes),
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.05},
        "warmup_steps": stage.warmup,
        "max_grad_norm": stage.clip,
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "bf16": work.precision == "bf16",
        "gradient_checkpointing": False,  # trl's default computes every layer twice
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a loss that is no number
        "save_steps": stage.checkpoint_every,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        "eval_steps": stage.evaluate_every,
        "seed": work.tuning.seed,
        "report_to": [],
        "disable_tqdm": True,
    }


def _sft(stage: Sft, work: Work, model: Any, watch: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def dataset(examples: list[Example], chosen: Sequence[int]) -> Dataset:
        rows = [(examples[i].prompt, examples[i].completion) for i in chosen]
        ids = [prompt + completion for prompt, completion in rows]
        labels = [[-100] * len(prompt) + completion for prompt, completion in rows]
        return Dataset.from_dict({"input_ids": ids, "labels": labels})

    examples, held = work.examples(work.train), work.examples(work.validation)
    chosen = order(len(examples), stage.batch, steps_of(stage, len(examples)), work.tuning.seed)
    by_length = sorted(range(len(held)), key=lambda i: held[i].tokens)
    arguments = SFTConfig(
        **_shared("sft", stage, work),
        packing=work.tuning.packing,
        max_length=work.tuning.max_tokens if work.tuning.packing else None,
    )
    return SFTTrainer(
        model,
        arguments,
        train_dataset=dataset(examples, chosen),
        eval_dataset=dataset(held, by_length),
        processing_class=work.tokenizer,
        callbacks=[watch],
    )


def _preference(stage: Preference, work: Work, model: Any, watch: Any) -> Any | None:
    from trl import DPOConfig, DPOTrainer

    pairs = preference_pairs(stage.pairs, work, model, work.folder / "preference")
    if len(pairs) < stage.batch:
        return None
    arguments = DPOConfig(
        **{**_shared("preference", stage, work), "eval_strategy": "no"}, beta=stage.beta, max_length=None
    )
    return DPOTrainer(
        model,
        args=arguments,
        train_dataset=_preferences(pairs, stage, work),
        processing_class=work.tokenizer,
        callbacks=[watch],
    )


def _preferences(pairs: list[dict[str, str]], stage: Stage, work: Work) -> Any:
    """Pairs of a chosen and a rejected answer as trl takes them, in their order."""
    from datasets import Dataset

    rows = [pairs[i] for i in order(len(pairs), stage.batch, steps_of(stage, len(pairs)), work.tuning.seed)]
    said = {side: [[turn(MODEL, row[side])] for row in rows] for side in ("chosen", "rejected")}
    return Dataset.from_dict({"prompt": [row["prompt"] for row in rows], **said})


def preference_pairs(wanted: int, work: Work, model: Any, folder: Path) -> list[dict[str, Any]]:
    """Preferences of the training pairs, or else the model's own wrong answers beside the right ones.

    They are written down, so that a resumed run learns from the same.
    """
    path = folder / "pairs.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    given = [row for row in work.train if row["rejected"]]
    pairs = [{"prompt": work.turns(r), "chosen": r["answer"], "rejected": r["rejected"]} for r in given[:wanted]]
    scorer = scorer_of(work.answer)
    chance = random.Random(work.tuning.seed)
    rows = [] if given else chance.sample(work.train, len(work.train)) * 2  # each message twice at most
    for start in range(0, min(len(rows), 8 * wanted), 32):
        some = rows[start : start + 32]
        for row, text in zip(some, work.answers(model, some, TEMPERATURE, work.tuning.seed + start), strict=True):
            if not scorer.score(text, row["answer"], message_of(row["messages"])).exact:
                pairs.append({"prompt": work.turns(row), "chosen": row["answer"], "rejected": text})
        if len(pairs) >= wanted:
            break
    write_text(path, json.dumps(pairs[:wanted]))
    return pairs[:wanted]


def _reward(stage: Reward, work: Work, model: Any, watch: Any) -> Any | None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    if stage.batch % stage.answers:
        raise CaseError(
            "The batch does not divide into answers to the same message.",
            where="train.stages.reward.batch",
            found=f"batch {stage.batch}, answers {stage.answers}",
            allowed="a batch that is a multiple of answers",
            todo="Change one of them.",
        )
    messages = stage.batch // stage.answers
    chosen = order(len(work.train), messages, steps_of(stage, len(work.train)), work.tuning.seed)
    rows = [work.train[i] for i in chosen]
    columns = {
        "prompt": [work.turns(row) for row in rows],
        "answer": [row["answer"] for row in rows],
        "message": [message_of(row["messages"]) for row in rows],
    }
    by_model = stage.reward == "model"
    paid = _reward_model(stage, work, model) if by_model else verifiable(scorer_of(work.answer))
    if paid is None:
        return None
    configs, trainers = {"grpo": GRPOConfig, "rloo": RLOOConfig}, {"grpo": GRPOTrainer, "rloo": RLOOTrainer}
    arguments = configs[stage.method](
        **{**_shared("reward", stage, work), "eval_strategy": "no"},
        num_generations=stage.answers,
        max_completion_length=work.serving.answer_tokens,
        temperature=stage.temperature,
        shuffle_dataset=False,
    )
    return trainers[stage.method](
        model,
        reward_funcs=paid,
        reward_processing_classes=work.tokenizer if by_model else None,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=work.tokenizer,
        callbacks=[watch],
    )


def _reward_model(stage: Reward, work: Work, model: Any) -> Any | None:
    """A model that tells a right answer from the tuned model's wrong ones; None when it gives too few wrong ones."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, PrinterCallback
    from trl import RewardConfig, RewardTrainer

    from tasks.train.watch import Watch, newest_sound

    preferring = work.tuning.stages.preference or Preference()
    pairs = preference_pairs(preferring.pairs, work, model, work.folder / "reward_model")
    if len(pairs) < stage.batch:
        return None
    lora, seed = work.tuning.lora, work.tuning.seed
    torch.manual_seed(seed)
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
    judge = AutoModelForSequenceClassification.from_pretrained(
        work.base.folder, num_labels=1, dtype=dtype, use_safetensors=True
    )
    judge.config.pad_token_id = work.tokenizer.pad_token_id
    arguments = {**_shared("reward_model", stage, work), "eval_strategy": "no", "learning_rate": 1e-4}
    watch = Watch("reward_model", stage, lambda *_: None, lambda *_: {}, lambda _: None)
    trainer: Any = RewardTrainer(
        judge,
        args=RewardConfig(**arguments, max_length=None),
        train_dataset=_preferences(pairs, stage, work),
        processing_class=work.tokenizer,
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # fractions work
            target_modules="all-linear",
            task_type="SEQ_CLS",
        ),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest_sound(work.folder / "reward_model")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer.model.eval()
