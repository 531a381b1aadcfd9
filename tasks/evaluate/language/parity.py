"""Parity of the serving stack with the training stack: rendered tokens, greedy answers, log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.evaluate.language.logprobs import token_logprobs
from tasks.evaluate.language.responses import Conversation
from tasks.evaluate.results import Criterion
from tasks.language.engine import start_engine
from tasks.language.prompts import Prompt
from tasks.language.prompts import render as render_prompt
from tasks.train.language.model import Example, open_tokenizer, render, token_ids
from tasks.train.results import LanguageSpec


@dataclass(frozen=True)
class Parity:
    """How far the stacks differ on golden prompts."""

    prompts: int
    rendered_differently: int  # prompts whose token ids differ
    tokens: int  # of the serving stack's greedy answers, end tokens included
    chosen_differently: int  # of these tokens: those that the training stack would not choose, except near ties
    difference: float | None  # the largest of a token's log-probability; None: nothing was answered


@dataclass(frozen=True)
class ServedModel:
    """What the serving stack runs: a model file, and the prompt of the release."""

    gguf: Path
    prompt: Prompt


def check_parity(
    spec: LanguageSpec,
    adapter: Path | None,
    served: ServedModel,
    prompts: Sequence[Conversation],
    *,
    threads: int,
    bound: float,
) -> Parity:
    """Send golden prompts to the served model, and compute the log-probabilities of its answers in transformers.

    Where two tokens are within `bound`, either may come first. Raises: DataError when model or adapter can't be read;
    Unavailable.
    """
    tokenizer, max_tokens = open_tokenizer(spec.base), spec.serving.answer_tokens
    trained = [render_prompt(spec.chat.prompt, messages) for messages in prompts]
    rendered = [token_ids(tokenizer, render(tokenizer, each)) for each in trained]
    conversations = [render_prompt(served.prompt, messages) for messages in prompts]
    with start_engine(served.gguf, threads=threads, slots=1, context=spec.chat.context) as engine:
        served_rendered = [engine.tokens(each) for each in conversations]
        responses = [engine.chat(each, max_tokens=max_tokens, logprobs=True) for each in conversations]
    answers = [response.logprobs or [] for response in responses]
    ends = [[tokenizer.eos_token_id] if response.finish == "stop" else [] for response in responses]
    completions = [
        [token for token, _ in answer if token not in end] + end for answer, end in zip(answers, ends, strict=True)
    ]
    examples = [Example(prompt, answer) for prompt, answer in zip(rendered, completions, strict=True)]
    expected = token_logprobs(spec.base, adapter, examples, threads)
    pairs = [
        (logprob, token.logprob)
        for answer, tokens in zip(answers, expected, strict=True)
        for (_, logprob), token in zip(answer, tokens, strict=False)
    ]
    return Parity(
        prompts=len(prompts),
        rendered_differently=sum(a != b for a, b in zip(rendered, served_rendered, strict=True)),
        tokens=sum(map(len, completions)),
        chosen_differently=sum(token.best - token.logprob > bound for answer in expected for token in answer),
        difference=max((abs(a - b) for a, b in pairs), default=None),
    )


def parity_criteria(parity: Parity | None, bound: float, problem: str = "") -> list[Criterion]:
    """A criterion for each way in which the stacks may differ; `problem` is why there is no parity."""
    rendered = None if parity is None or not parity.prompts else float(parity.rendered_differently)
    chosen = None if parity is None or not parity.tokens else float(parity.chosen_differently)
    difference = None if parity is None else parity.difference
    prompts = "" if parity is None else f"of {parity.prompts} golden prompts"
    tokens = "" if parity is None else f"of {parity.tokens:,} tokens answered greedily, near ties apart"
    problem = problem or "nothing was answered"
    rows = [
        ("parity_rendered_otherwise", rendered, 0.0, prompts),
        ("parity_chosen_otherwise", chosen, 0.0, tokens),
        ("parity_logprob_difference", difference, bound, "largest of a token, between training and serving stack"),
    ]
    return [
        Criterion(
            name=name,
            observed=observed,
            required=f"<= {limit:g}",
            passed=observed is not None and observed <= limit,
            note=note if observed is not None else problem,
        )
        for name, observed, limit, note in rows
    ]
