"""One thin layer over trl's trainers: a function a stage."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import CaseError
from tasks.core.files import write_text
from tasks.core.progress import progress_step
from tasks.language.messages import ASSISTANT, chat_message, user_message
from tasks.train.config import Preference, Reward, Sft, Stage
from tasks.train.language.distributed import main_process_first, rank
from tasks.train.language.logprobs import without_triton
from tasks.train.language.model import Example
from tasks.train.language.rewards import scorer_of, verifiable
from tasks.train.language.stage_context import StageContext, arguments_of, order, steps_of

TEMPERATURE = 1.0  # at which the model shows its wrong answers


def make_trainer(name: str, stage: Stage, work: StageContext, model: Any, watch: Any) -> Any | None:
    """A stage's trainer, ready to train; None when there is nothing to learn from."""
    from transformers import PrinterCallback

    without_triton()
    make: Any = {"sft": _sft, "preference": _preference, "reward": _reward}[name]
    trainer = make(stage, work, model, watch)
    if trainer is not None:
        trainer.remove_callback(PrinterCallback)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # trl makes them bf16 on a base in four bits
                parameter.data = parameter.data.float()
    return trainer


def _sft(stage: Sft, work: StageContext, model: Any, watch: Any) -> Any:
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
        **arguments_of("sft", stage, work),
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


def _preference(stage: Preference, work: StageContext, model: Any, watch: Any) -> Any | None:
    from trl import DPOConfig, DPOTrainer

    with main_process_first():
        pairs = preference_pairs(stage.pairs, stage.batch, work, model, work.folder / "preference")
    if len(pairs) < stage.batch:
        return None
    arguments = DPOConfig(
        **{**arguments_of("preference", stage, work), "eval_strategy": "no"}, beta=stage.beta, max_length=None
    )
    return DPOTrainer(
        model,
        args=arguments,
        train_dataset=_preferences(pairs, stage, work),
        processing_class=work.tokenizer,
        callbacks=[watch],
    )


def _preferences(pairs: list[dict[str, str]], stage: Stage, work: StageContext) -> Any:
    """Pairs of a chosen and a rejected answer as trl takes them, in their order."""
    from datasets import Dataset

    rows = [pairs[i] for i in order(len(pairs), stage.batch, steps_of(stage, len(pairs)), work.tuning.seed)]
    said = {side: [[chat_message(ASSISTANT, row[side])] for row in rows] for side in ("chosen", "rejected")}
    return Dataset.from_dict({"prompt": [row["prompt"] for row in rows], **said})


def preference_pairs(wanted: int, least: int, work: StageContext, model: Any, folder: Path) -> list[dict[str, Any]]:
    """Preferences of the training pairs; where those are fewer than `least`, also the model's own wrong answers.

    They are written down, so that a resumed run learns from the same.
    """
    path = folder / "pairs.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    given = [row for row in work.train if row["rejected"]]
    pairs = [{"prompt": work.turns(r), "chosen": r["answer"], "rejected": r["rejected"]} for r in given[:wanted]]
    scorer = scorer_of(work.talk.answer)
    chance = random.Random(work.tuning.seed)
    rows = [] if len(given) >= least else chance.sample(work.train, len(work.train)) * 2  # each message twice at most
    for start in range(0, min(len(rows), 8 * wanted), 32):
        some = rows[start : start + 32]
        with progress_step("look for wrong answers") as told:
            for row, text in zip(some, work.answers(model, some, TEMPERATURE, work.tuning.seed + start), strict=True):
                if not scorer.score(text, row["answer"], user_message(row["messages"])).exact:
                    pairs.append({"prompt": work.turns(row), "chosen": row["answer"], "rejected": text})
            told.figure = f"{len(pairs)} of {wanted} found, {start + len(some)} messages asked"
        if len(pairs) >= wanted or work.clock.over():
            break
    write_text(path, json.dumps(pairs[:wanted]))
    return pairs[:wanted]


def _reward(stage: Reward, work: StageContext, model: Any, watch: Any) -> Any | None:
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
        "message": [user_message(row["messages"]) for row in rows],
    }
    by_model = stage.reward == "model"
    paid = _reward_model(stage, work, model) if by_model else verifiable(scorer_of(work.talk.answer))
    if paid is None:
        return None
    configs, trainers = {"grpo": GRPOConfig, "rloo": RLOOConfig}, {"grpo": GRPOTrainer, "rloo": RLOOTrainer}
    arguments = configs[stage.method](
        **{**arguments_of("reward", stage, work), "eval_strategy": "no"},
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


def _reward_model(stage: Reward, work: StageContext, model: Any) -> Any | None:
    """A model that tells a right answer from the tuned model's wrong ones; None when it gives too few wrong ones."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, PrinterCallback
    from trl import RewardConfig, RewardTrainer

    from tasks.train.language.trainer_callbacks import FollowerCallback, ProgressCallback, newest_valid_checkpoint

    preferring = work.tuning.stages.preference or Preference()
    with main_process_first():
        pairs = preference_pairs(preferring.pairs, stage.batch, work, model, work.folder / "reward_model")
    if len(pairs) < stage.batch:
        return None
    lora, seed = work.tuning.lora, work.tuning.seed
    torch.manual_seed(seed)
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
    judge = AutoModelForSequenceClassification.from_pretrained(
        work.base.folder, num_labels=1, dtype=dtype, use_safetensors=True
    )
    judge.config.pad_token_id = work.tokenizer.pad_token_id
    arguments = {**arguments_of("reward_model", stage, work), "eval_strategy": "no", "learning_rate": 1e-4}
    watch = (
        ProgressCallback("reward_model", stage, lambda *_: None, lambda *_: {}, lambda _: None, work.clock.over)
        if rank() == 0
        else FollowerCallback()
    )
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
    with main_process_first():
        checkpoint = newest_valid_checkpoint(work.folder / "reward_model")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer.model.eval()
