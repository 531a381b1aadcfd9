"""The context of a tuning stage: pairs as tokens, their order, and the arguments that all trainers share."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.core.errors import CaseError, DataError
from tasks.language.prompts import render as render_prompt
from tasks.train.config import Stage, Tuning
from tasks.train.language.model import (
    Example,
    GenerationSettings,
    Precision,
    encode,
    generate,
    open_tokenizer,
    render,
)
from tasks.train.language.time_budget import TrainingClock
from tasks.train.results import LanguageSpec

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class StageContext:
    """The inputs that all stages of one tuning share."""

    spec: LanguageSpec
    tuning: Tuning
    precision: Precision
    train: Rows
    validation: Rows
    folder: Path  # checkpoints, and each stage's adapter; outlives a killed process
    clock: TrainingClock  # of all stages together

    @cached_property
    def tokenizer(self) -> Any:
        return open_tokenizer(self.spec.base)

    def examples(self, rows: Rows) -> list[Example]:
        """Pairs as token ids."""
        return [encode(self.tokenizer, self.turns(row), row["answer"]) for row in rows]

    def turns(self, row: dict[str, Any]) -> list[dict[str, str]]:
        """A row's messages behind the prompt."""
        return render_prompt(self.spec.chat.prompt, row["messages"])

    def answers(self, model: Any, rows: Rows, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """The model's answers to these rows."""
        prompts = [render(self.tokenizer, self.turns(row)) for row in rows]
        settings = GenerationSettings(
            self.spec.serving.answer_tokens, temperature=temperature, seed=seed, precision=self.precision
        )
        return generate(model, self.tokenizer, prompts, settings)


def check_lengths(context: StageContext, pairs: Mapping[str, Rows], allowed: int) -> None:
    """Raises: DataError naming the pairs that are too long; pairs are never truncated."""
    for name, rows in pairs.items():
        examples = context.examples(rows)
        long = [(row["pair_id"], e.tokens) for row, e in zip(rows, examples, strict=True) if e.tokens > allowed]
        if long:
            raise DataError(
                f"{len(long)} of the {name} pairs are longer than the model may read.",
                where=f"{name}.parquet",
                found=", ".join(f"{pair} ({tokens} tokens)" for pair, tokens in long[:5]),
                allowed=f"at most {allowed} tokens, system prompt and answer included",
                todo="Raise train.max_tokens and model.context, shorten the system prompt, or drop these pairs.",
            )


def example_order(examples: int, batch: int, steps: int, seed: int) -> list[int]:
    """The order of the examples: shuffled epochs, fixed in advance, so that a resumed run continues where it stopped.

    Batches of similar lengths need less padding. But an intent with short answers then has batches of its own, and
    the model oscillates between intents: half of the validation pairs were right instead of 94 %.
    """
    generator = random.Random(seed)
    epochs = math.ceil(steps * batch / examples)
    return [i for _ in range(epochs) for i in generator.sample(range(examples), examples)][: steps * batch]


def optimizer_steps(stage: Stage, examples: int) -> int:
    """Optimizer steps of a stage."""
    return stage.steps or max(1, math.ceil(stage.epochs * examples / stage.batch))


def micro_batch(stage: Stage, processes: int) -> int:
    """The number of examples that a process holds in memory at once."""
    return stage.micro_batch or max(1, stage.batch // processes)


def trainer_arguments(name: str, stage: Stage, context: StageContext) -> dict[str, Any]:
    """The arguments that all trainers share."""
    import torch

    on_gpu = torch.cuda.is_available()
    processes = context.tuning.processes
    micro = micro_batch(stage, processes)
    if stage.batch % (micro * processes):
        raise CaseError(
            "The batch does not divide into micro-batches.",
            where=f"train.stages.{name}.micro_batch",
            found=f"batch {stage.batch}, micro_batch {micro}, {processes} process(es)",
            allowed="a batch that is a multiple of micro_batch x processes",
            todo="Change one of them.",
        )
    return {
        "output_dir": str(context.folder / name),
        "num_train_epochs": 1,  # `example_order` puts all epochs into one
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
        "bf16": context.precision == "bf16",
        "ddp_find_unused_parameters": False,
        "gradient_checkpointing": False,  # trl's default, which computes every layer twice
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a loss that is not finite
        "save_steps": stage.checkpoint_every,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        "eval_steps": stage.evaluate_every,
        "seed": context.tuning.seed,
        "report_to": [],
        "disable_tqdm": True,
    }
