"""A thin layer over trl's trainers: one function for each stage."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import CaseError
from tasks.core.files import write_text
from tasks.core.progress import progress_step
from tasks.data.language.scorer import scorer_of
from tasks.language.messages import ASSISTANT, chat_message, user_message
from tasks.train.config import Preference, Reward, Sft, Stage
from tasks.train.language.distributed import main_process_first, rank
from tasks.train.language.model import Example
from tasks.train.language.rewards import verifiable
from tasks.train.language.stage_context import StageContext, example_order, optimizer_steps, trainer_arguments

SAMPLING_TEMPERATURE = 1.0  # for sampling wrong answers


def make_trainer(name: str, stage: Stage, context: StageContext, model: Any, callback: Any) -> Any | None:
    """A stage's trainer; None when there is nothing to learn from. Call it and train within `plain_torch_logprobs`."""
    from transformers import PrinterCallback

    factory: Any = {"sft": _sft, "preference": _preference, "reward": _reward}[name]
    trainer = factory(stage, context, model, callback)
    if trainer is not None:
        trainer.remove_callback(PrinterCallback)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # trl converts them to bf16 on a base in four bits
                parameter.data = parameter.data.float()
    return trainer


def _sft(stage: Sft, context: StageContext, model: Any, callback: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def dataset(examples: list[Example], chosen: Sequence[int]) -> Dataset:
        rows = [(examples[i].prompt, examples[i].completion) for i in chosen]
        ids = [prompt + completion for prompt, completion in rows]
        labels = [[-100] * len(prompt) + completion for prompt, completion in rows]
        return Dataset.from_dict({"input_ids": ids, "labels": labels})

    examples, validation = context.examples(context.train), context.examples(context.validation)
    chosen = example_order(len(examples), stage.batch, optimizer_steps(stage, len(examples)), context.tuning.seed)
    by_length = sorted(range(len(validation)), key=lambda i: validation[i].tokens)
    arguments = SFTConfig(
        **trainer_arguments("sft", stage, context),
        packing=context.tuning.packing,
        max_length=context.tuning.max_tokens if context.tuning.packing else None,
    )
    return SFTTrainer(
        model,
        arguments,
        train_dataset=dataset(examples, chosen),
        eval_dataset=dataset(validation, by_length),
        processing_class=context.tokenizer,
        callbacks=[callback],
    )


def _preference(stage: Preference, context: StageContext, model: Any, callback: Any) -> Any | None:
    from trl import DPOConfig, DPOTrainer

    with main_process_first():
        pairs = preference_pairs(stage.pairs, stage.batch, context, model, context.folder / "preference")
    if len(pairs) < stage.batch:
        return None
    arguments = DPOConfig(
        **{**trainer_arguments("preference", stage, context), "eval_strategy": "no"}, beta=stage.beta, max_length=None
    )
    return DPOTrainer(
        model,
        args=arguments,
        train_dataset=_preferences(pairs, stage, context),
        processing_class=context.tokenizer,
        callbacks=[callback],
    )


def _preferences(pairs: list[dict[str, str]], stage: Stage, context: StageContext) -> Any:
    """Pairs of a chosen and a rejected answer in trl's format, in training order."""
    from datasets import Dataset

    order = example_order(len(pairs), stage.batch, optimizer_steps(stage, len(pairs)), context.tuning.seed)
    rows = [pairs[i] for i in order]
    answers = {side: [[chat_message(ASSISTANT, row[side])] for row in rows] for side in ("chosen", "rejected")}
    return Dataset.from_dict({"prompt": [row["prompt"] for row in rows], **answers})


def preference_pairs(
    maximum: int, minimum: int, context: StageContext, model: Any, folder: Path
) -> list[dict[str, Any]]:
    """Preferences of the training pairs; if there are fewer than `minimum`, also wrong answers of the model.

    They are stored, so that a resumed run learns from the same pairs.
    """
    path = folder / "pairs.json"
    if path.is_file():
        stored: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return stored
    rejected = [row for row in context.train if row["rejected"]]
    pairs = [{"prompt": context.turns(r), "chosen": r["answer"], "rejected": r["rejected"]} for r in rejected[:maximum]]
    scorer = scorer_of(context.spec.chat.answer)
    generator = random.Random(context.tuning.seed)
    rows = [] if len(rejected) >= minimum else generator.sample(context.train, len(context.train)) * 2
    for start in range(0, min(len(rows), 8 * maximum), 32):
        batch = rows[start : start + 32]
        with progress_step("sample wrong answers") as step:
            texts = context.answers(model, batch, SAMPLING_TEMPERATURE, context.tuning.seed + start)
            for row, text in zip(batch, texts, strict=True):
                if not scorer.score(text, row["answer"], user_message(row["messages"])).exact:
                    pairs.append({"prompt": context.turns(row), "chosen": row["answer"], "rejected": text})
            step.figure = f"{len(pairs)} of {maximum} pairs from {start + len(batch)} messages"
        if len(pairs) >= maximum or context.clock.over():
            break
    write_text(path, json.dumps(pairs[:maximum]))
    return pairs[:maximum]


def _reward(stage: Reward, context: StageContext, model: Any, callback: Any) -> Any | None:
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
    chosen = example_order(
        len(context.train), messages, optimizer_steps(stage, len(context.train)), context.tuning.seed
    )
    rows = [context.train[i] for i in chosen]
    columns = {
        "prompt": [context.turns(row) for row in rows],
        "answer": [row["answer"] for row in rows],
        "message": [user_message(row["messages"]) for row in rows],
    }
    by_model = stage.reward == "model"
    reward_function = (
        _reward_model(stage, context, model) if by_model else verifiable(scorer_of(context.spec.chat.answer))
    )
    if reward_function is None:
        return None
    configs, trainers = {"grpo": GRPOConfig, "rloo": RLOOConfig}, {"grpo": GRPOTrainer, "rloo": RLOOTrainer}
    arguments = configs[stage.method](
        **{**trainer_arguments("reward", stage, context), "eval_strategy": "no"},
        num_generations=stage.answers,
        max_completion_length=context.spec.serving.answer_tokens,
        temperature=stage.temperature,
        shuffle_dataset=False,
    )
    return trainers[stage.method](
        model,
        reward_funcs=reward_function,
        reward_processing_classes=context.tokenizer if by_model else None,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=context.tokenizer,
        callbacks=[callback],
    )


def _reward_model(stage: Reward, context: StageContext, model: Any) -> Any | None:
    """A model that separates right answers from the tuned model's wrong ones; None if there are too few wrong ones."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, PrinterCallback
    from trl import RewardConfig, RewardTrainer

    from tasks.train.language.trainer_callbacks import FollowerCallback, ProgressCallback, newest_valid_checkpoint

    preference = context.tuning.stages.preference or Preference()
    with main_process_first():
        pairs = preference_pairs(preference.pairs, stage.batch, context, model, context.folder / "reward_model")
    if len(pairs) < stage.batch:
        return None
    lora, seed = context.tuning.lora, context.tuning.seed
    torch.manual_seed(seed)
    dtype = torch.bfloat16 if context.precision == "bf16" else torch.float32
    judge = AutoModelForSequenceClassification.from_pretrained(
        context.spec.base.folder, num_labels=1, dtype=dtype, use_safetensors=True
    )
    judge.config.pad_token_id = context.tokenizer.pad_token_id
    arguments = {**trainer_arguments("reward_model", stage, context), "eval_strategy": "no", "learning_rate": 1e-4}
    callback = (
        ProgressCallback("reward_model", stage, lambda *_: None, lambda *_: {}, lambda _: None, context.clock.over)
        if rank() == 0
        else FollowerCallback()
    )
    trainer: Any = RewardTrainer(
        judge,
        args=RewardConfig(**arguments, max_length=None),
        train_dataset=_preferences(pairs, stage, context),
        processing_class=context.tokenizer,
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # fractions context
            target_modules="all-linear",
            task_type="SEQ_CLS",
        ),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    with main_process_first():
        checkpoint = newest_valid_checkpoint(context.folder / "reward_model")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer.model.eval()
