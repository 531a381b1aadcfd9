"""What each stage of a tuning asks of a machine, whatever the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.train.config import Preference, Tuning
from tasks.train.language.model import Example


@dataclass(frozen=True)
class ResourceEstimate:
    """What a stage does with each example of a batch, beyond reading it once to learn from it."""

    examples: int  # that it has to learn from
    longest: int  # tokens of the longest one
    answered: int  # tokens of its answer
    sequences: int = 1  # that are learnt from: a chosen and a rejected answer are two
    forwards: int = 0  # further passes that nothing is learnt from: of what the model was before, of a reward model
    written: int = 0  # tokens of the answer that the model writes itself
    before: int = 0  # tokens that it writes before the first step: its own wrong answers
    models: int = 0  # beside the one that learns


def estimate_resources(
    name: str, tuning: Tuning, examples: Sequence[Example], answer_tokens: int, preferring: int = 0
) -> ResourceEstimate:
    """What a stage does, by what it is; `answer_tokens` is the longest answer that is written."""
    longest = max(each.tokens for each in examples)
    answered = max(len(each.completion) for each in examples)
    if name == "sft":
        return ResourceEstimate(len(examples), longest, answered)
    preference, reward = tuning.stages.preference or Preference(), tuning.stages.reward
    usual = sum(len(each.completion) for each in examples) // len(examples)
    if name == "preference":
        pairs, own = _preferences(preference, preference.batch, len(examples), preferring)
        # a rejected answer is no longer than one that is written
        longest += max(0, answer_tokens - answered)
        return ResourceEstimate(
            pairs, longest, max(answered, answer_tokens), sequences=2, forwards=2, before=own * usual
        )
    by_model = reward is not None and reward.reward == "model"
    own = _preferences(preference, reward.batch, len(examples), preferring)[1] if reward and by_model else 0
    longest += max(0, answer_tokens - answered)
    compared = int(reward is not None and reward.method == "rloo")  # with what the model was, for its distance
    return ResourceEstimate(
        len(examples),
        longest,
        max(answered, answer_tokens),
        forwards=compared + int(by_model),
        written=usual,
        before=own * usual,
        models=int(by_model),
    )


def _preferences(stage: Preference, batch: int, examples: int, given: int) -> tuple[int, int]:
    """Pairs that a preference stage has at most, and answers that the model writes for them at most."""
    if given >= batch:
        return min(given, stage.pairs), 0
    return stage.pairs, min(2 * examples, 8 * stage.pairs)
