"""Log-probabilities of answer tokens in plain torch, in place of trl's function, which is written for GPUs."""

from __future__ import annotations

from typing import Any

MAX_SCORES = 2**25  # fp32 scores in memory at once; above that, trl's own function works in chunks


class TorchLogProbs:
    """Replaces trl's autograd function: the same formula, differentiated by torch itself."""

    @staticmethod
    def apply(hidden: Any, weight: Any, bias: Any, targets: Any, *options: Any) -> tuple[Any, ...]:
        """The log-probability of each position's token (n, width), and those of the five `outputs` that are named.

        The others are None: entropy, the log of the sum of squared probabilities, the mean score, and whether the
        token is the likeliest. The arguments are those of trl's function, in its order; the options are temperature,
        chunk size, softcap, scale and outputs.
        """
        import torch
        from trl.kernels import ChunkedLogProbFunction

        if hidden.is_cuda or len(hidden) * len(weight) > MAX_SCORES:
            apply: Any = ChunkedLogProbFunction.apply
            return tuple(apply(hidden, weight, bias, targets, *options))
        temperature, _, softcap, scale, outputs = options
        if not torch.is_autocast_enabled(hidden.device.type):  # else torch casts, and caches the result
            weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        scores = torch.nn.functional.linear(hidden, weight, bias).float() * scale
        scores = (softcap * torch.tanh(scores / softcap) if softcap else scores) / temperature
        logprobs = scores.log_softmax(-1)
        return (
            logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1),
            -(logprobs.exp() * logprobs).sum(-1) if "entropy" in outputs else None,
            (2 * logprobs).logsumexp(-1) if "log_sum_sq_probs" in outputs else None,
            scores.mean(-1) if "mean_logits" in outputs else None,
            scores.argmax(-1) == targets if "is_top1" in outputs else None,
        )
