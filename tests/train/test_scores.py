from __future__ import annotations

from typing import Any

import pytest

from tasks.train.language import logprobs
from tasks.train.language.logprobs import TorchLogProbs


def arguments(outputs: tuple[str, ...], bias: bool, softcap: float | None, scale: float) -> tuple[Any, ...]:
    """A position's states, the output layer, and the tokens; the states need a gradient."""
    import torch

    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 16, requires_grad=True), torch.randn(50, 16)
    shift = torch.randn(50) if bias else None
    targets = torch.randint(50, (7,))
    targets[0] = torch.nn.functional.linear(hidden[0], weight, shift).argmax()
    return hidden, weight, shift, targets, 0.7, 20, softcap, scale, outputs


@pytest.mark.parametrize(("bias", "softcap", "scale"), [(False, None, 1.0), (True, 5.0, 0.5)])
@pytest.mark.parametrize("outputs", [(), ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")])
def test_plain_scores_are_those_of_trl(
    outputs: tuple[str, ...], bias: bool, softcap: float | None, scale: float
) -> None:
    """Values and gradients equal those of trl's own function, whatever else is asked for."""
    import torch
    from trl.kernels import ChunkedLogProbFunction

    gradients, results = [], []
    for way in (TorchLogProbs.apply, ChunkedLogProbFunction.apply):
        args = arguments(outputs, bias, softcap, scale)
        results.append(way(*args))
        (results[-1][0].sum() + (results[-1][1].sum() if outputs else 0)).backward()
        gradients.append(args[0].grad)
    assert torch.allclose(*gradients, atol=1e-5)
    for plain, chunked in zip(*results, strict=True):
        assert (plain is None) == (chunked is None)
        assert plain is None or torch.allclose(plain.float(), chunked.float(), atol=1e-5)
    assert not outputs or results[0][4][0]


def test_an_output_layer_of_another_precision_is_read_in_the_states_own() -> None:
    """As by trl's own function: a bf16 layer under fp32 states, outside autocast."""
    import torch
    from trl.kernels import ChunkedLogProbFunction

    hidden, weight, *others = arguments((), True, None, 1.0)
    plain, chunked = (
        way(hidden, weight.bfloat16(), *others)[0] for way in (TorchLogProbs.apply, ChunkedLogProbFunction.apply)
    )
    assert plain.dtype == chunked.dtype == torch.float32
    assert torch.allclose(plain, chunked, atol=1e-5)


def test_more_scores_than_fit_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then trl's own function has them, whose parts are bounded."""
    import torch

    args = arguments(("entropy",), False, None, 1.0)
    plain = TorchLogProbs.apply(*args)[0]
    assert "ChunkedLogProb" not in type(plain.grad_fn).__name__
    monkeypatch.setattr(logprobs, "MAX_SCORES", 7 * 50 - 1)
    parted = TorchLogProbs.apply(*args)[0]
    assert "ChunkedLogProb" in type(parted.grad_fn).__name__
    assert torch.allclose(plain, parted, atol=1e-5)
