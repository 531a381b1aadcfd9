"""How likely a model finds the tokens of an answer, as trl asks for it, without what trl does for a GPU's sake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST = 2**25  # scores in memory at once, in fp32; of more than that, trl's own way has a part at a time


def without_triton() -> None:
    """Have trl score only the positions that carry a label, and without a GPU in plain torch.

    Where Triton is not, it would score each prompt, too, and in its kernels' steps: a tenth of a small model's time.
    """
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer import utils

    class Scoring:
        """In place of trl's autograd function: the same formula, which torch differentiates itself."""

        @staticmethod
        def apply(hidden: Any, weight: Any, *told: Any) -> tuple[Any, ...]:
            if hidden.is_cuda or len(hidden) * len(weight) > MOST:
                return ChunkedLogProbFunction.apply(hidden, weight, *told)
            return scores_of(hidden, weight, *told)

    changed: Any = utils
    changed._use_triton = lambda device: True
    changed._ChunkedLogProbFunction = Scoring


def scores_of(
    hidden: Any,
    weight: Any,
    bias: Any,
    targets: Any,
    temperature: float,
    chunk: int,
    softcap: float | None,
    scale: float,
    outputs: Sequence[str],
) -> tuple[Any, ...]:
    """Of each position (n, width) the log-probability of its token, and what else `outputs` names, else None.

    That is the entropy, the log of the sum of squared probabilities, the mean score, and whether the token is the
    likeliest. `chunk` is of no use here.
    """
    import torch

    if not torch.is_autocast_enabled(hidden.device.type):  # else torch casts, and what it was cast to is kept
        weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    scores = torch.nn.functional.linear(hidden, weight, bias).float() * scale
    scores = (softcap * torch.tanh(scores / softcap) if softcap else scores) / temperature
    likely = scores.log_softmax(-1)
    found = likely.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return (
        found,
        -(likely.exp() * likely).sum(-1) if "entropy" in outputs else None,
        (2 * likely).logsumexp(-1) if "log_sum_sq_probs" in outputs else None,
        scores.mean(-1) if "mean_logits" in outputs else None,
        scores.argmax(-1) == targets if "is_top1" in outputs else None,
    )
