"""Log-probabilities of answers in the training stack, for perplexity and for parity with serving."""

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
class TokenLogprob:
    """The log-probability of a token, and the highest of any token in its place."""

    logprob: float
    best: float


def token_logprobs(
    base: BaseModelFiles, adapter: Path | None, examples: Sequence[Example], threads: int
) -> list[list[TokenLogprob]]:
    """The log-probability of each token of each completion, after its prompt.

    The common prefix of all prompts is computed once, so few-shot examples add no cost. Raises: DataError when the
    adapter can't be read.
    """
    import torch

    with silence_libraries(threads):
        model = load_base(base, "fp32" if base.parameters < PRECISE else "bf16", "sdpa")
        if adapter is not None:
            model = load_adapter(model, adapter)
        model.eval()
        device, prefix = model.device, _common_prefix([example.prompt[:-1] for example in examples])
        order = sorted(range(len(examples)), key=lambda i: examples[i].tokens)
        results: list[list[TokenLogprob]] = [[] for _ in examples]
        with torch.inference_mode():
            cache = None
            if prefix:
                ids = torch.tensor([examples[0].prompt[:prefix]], device=device)
                cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
            for start in range(0, len(order), BATCH):
                batch = [examples[i] for i in order[start : start + BATCH]]
                rows = [example.prompt[prefix:] + example.completion for example in batch]
                width = max(map(len, rows))
                ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
                mask = torch.tensor([[1] * (prefix + len(row)) + [0] * (width - len(row)) for row in rows])
                past = copy.deepcopy(cache)
                if past is not None:
                    past.batch_repeat_interleave(len(batch))
                logits = model(ids, attention_mask=mask.to(device), past_key_values=past).logits
                for row, example in enumerate(batch):
                    first, count = len(example.prompt) - prefix, len(example.completion)
                    logprobs = logits[row, first - 1 : first - 1 + count].float().log_softmax(-1)
                    chosen = logprobs.gather(-1, ids[row, first : first + count, None])[:, 0]
                    both = zip(chosen.tolist(), logprobs.amax(-1).tolist(), strict=True)
                    results[order[start + row]] = [TokenLogprob(*each) for each in both]
    return results


def perplexity(answers: Sequence[Sequence[TokenLogprob]]) -> float:
    """exp of the mean negative log-probability over all tokens of the expected answers."""
    from math import exp

    tokens = [token.logprob for answer in answers for token in answer]
    return exp(-sum(tokens) / len(tokens))


def _common_prefix(prompts: Sequence[list[int]]) -> int:
    """The number of tokens with which all prompts begin."""
    lowest, highest = min(prompts), max(prompts)  # in order of their tokens; all others lie between
    return next((i for i, (a, b) in enumerate(zip(lowest, highest, strict=False)) if a != b), len(lowest))
