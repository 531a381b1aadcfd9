"""How likely answers are in the training stack: what perplexity is made of, and what serving must agree with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.data.results import BaseModelFiles
from tasks.language.library_noise import silence_libraries
from tasks.train.language.model import Example, load_adapter, load_base

BATCH = 8
PRECISE = 1_000_000_000  # parameters; a smaller model runs in float32, so that any difference is the other stack's


@dataclass(frozen=True)
class Likelihood:
    """Of one token: its log-probability, and the highest that any token had in its place."""

    said: float
    best: float


def likelihoods(
    base: BaseModelFiles, adapter: Path | None, examples: Sequence[Example], threads: int
) -> list[list[Likelihood]]:
    """How likely each token of each completion is after its prompt.

    What all prompts begin with is computed once: shown examples cost no more than the questions. Raises: DataError
    when the adapter can't be read.
    """
    import torch

    with silence_libraries(threads):
        model = load_base(base, "fp32" if base.parameters < PRECISE else "bf16", "sdpa")
        if adapter is not None:
            model = load_adapter(model, adapter)
        model.eval()
        device, shared = model.device, _shared([example.prompt[:-1] for example in examples])
        order = sorted(range(len(examples)), key=lambda i: examples[i].tokens)
        found: list[list[Likelihood]] = [[] for _ in examples]
        with torch.inference_mode():
            begun = None
            if shared:
                ids = torch.tensor([examples[0].prompt[:shared]], device=device)
                begun = model(ids, use_cache=True, logits_to_keep=1).past_key_values
            for start in range(0, len(order), BATCH):
                some = [examples[i] for i in order[start : start + BATCH]]
                rows = [example.prompt[shared:] + example.completion for example in some]
                width = max(map(len, rows))
                ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
                seen = torch.tensor([[1] * (shared + len(row)) + [0] * (width - len(row)) for row in rows])
                past = copy.deepcopy(begun)
                if past is not None:
                    past.batch_repeat_interleave(len(some))
                logits = model(ids, attention_mask=seen.to(device), past_key_values=past).logits
                for row, example in enumerate(some):
                    first, count = len(example.prompt) - shared, len(example.completion)
                    there = logits[row, first - 1 : first - 1 + count].float().log_softmax(-1)
                    said = there.gather(-1, ids[row, first : first + count, None])[:, 0]
                    both = zip(said.tolist(), there.amax(-1).tolist(), strict=True)
                    found[order[start + row]] = [Likelihood(*each) for each in both]
    return found


def perplexity(found: Sequence[Sequence[Likelihood]]) -> float:
    """How many tokens the model wavers between, on average, where it should write the answers."""
    from math import exp

    tokens = [token.said for answer in found for token in answer]
    return exp(-sum(tokens) / len(tokens))


def _shared(prompts: Sequence[list[int]]) -> int:
    """Tokens with which all prompts begin."""
    lowest, highest = min(prompts), max(prompts)  # in order of their tokens; all others lie between
    return next((i for i, (a, b) in enumerate(zip(lowest, highest, strict=False)) if a != b), len(lowest))
