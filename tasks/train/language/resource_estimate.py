"""The resources that each stage of a tuning needs, independent of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.train.config import Preference, Tuning
from tasks.train.language.model import Example


@dataclass(frozen=True)
class ResourceEstimate:
    """The work of a stage for each example, besides training on it once."""

    examples: int  # in the training set
    longest: int  # tokens of the longest one
    answered: int  # tokens of its answer
    sequences: int = 1  # trained on for each example: a chosen and a rejected answer are two
    forwards: int = 0  # passes without training: of the reference model, of a reward model
    written: int = 0  # tokens that the model generates for each example
    before: int = 0  # tokens that the model generates before the first step: wrong answers
    models: int = 0  # in memory besides the trained one


def estimate_resources(
    name: str, tuning: Tuning, examples: Sequence[Example], answer_tokens: int, preference_pairs: int = 0
) -> ResourceEstimate:
    """The work of a stage. answer_tokens: the longest generated answer; preference_pairs: pairs with a rejected one."""
    longest = max(each.tokens for each in examples)
    answered = max(len(each.completion) for each in examples)
    if name == "sft":
        return ResourceEstimate(len(examples), longest, answered)
    preference, reward = tuning.stages.preference or Preference(), tuning.stages.reward
    usual = sum(len(each.completion) for each in examples) // len(examples)
    if name == "preference":
        pairs, own = _preferences(preference, preference.batch, len(examples), preference_pairs)
        # a rejected answer is no longer than a generated one
        longest += max(0, answer_tokens - answered)
        return ResourceEstimate(
            pairs, longest, max(answered, answer_tokens), sequences=2, forwards=2, before=own * usual
        )
    by_model = reward is not None and reward.reward == "model"
    own = _preferences(preference, reward.batch, len(examples), preference_pairs)[1] if reward and by_model else 0
    longest += max(0, answer_tokens - answered)
    compared = int(reward is not None and reward.method == "rloo")  # with the reference model
    return ResourceEstimate(
        len(examples),
        longest,
        max(answered, answer_tokens),
        forwards=compared + int(by_model),
        written=usual,
        before=own * usual,
        models=int(by_model),
    )


def _preferences(stage: Preference, batch: int, examples: int, rejected: int) -> tuple[int, int]:
    """The most pairs of a preference stage, and the most answers that the model generates for them."""
    if rejected >= batch:
        return min(rejected, stage.pairs), 0
    return stage.pairs, min(2 * examples, 8 * stage.pairs)
