"""Does the serving stack say what the training stack would? Rendered tokens, greedy answers, log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.data.results import BaseModelFiles
from tasks.evaluate.language.logprobs import likelihoods
from tasks.evaluate.results import Criterion
from tasks.language.engine import start_engine
from tasks.language.messages import SYSTEM, chat_message
from tasks.train.config import Serving
from tasks.train.language.model import Example, open_tokenizer, render, token_ids


@dataclass(frozen=True)
class Parity:
    """What was found on golden prompts."""

    prompts: int
    rendered_otherwise: int  # prompts whose token ids differ
    tokens: int  # of the serving stack's greedy answers, with those that end them
    chosen_otherwise: int  # of them: those that the training stack would not write, near ties apart
    difference: float | None  # largest, of a token's log-probability; None: nothing was answered


def check_parity(
    base: BaseModelFiles,
    adapter: Path | None,
    gguf: Path,
    system: str,
    asked: Sequence[Sequence[dict[str, str]]],
    serving: Serving,
    context: int,
    threads: int,
    bound: float,
    served_system: str | None = None,
) -> Parity:
    """Ask the served model golden prompts, and let base and adapter in transformers say how likely its answers are.

    `served_system` is the system prompt that a release holds, when it isn't taken from the case. Where two tokens are
    within `bound`, either may come first. Raises: DataError when model or adapter can't be read; Unavailable.
    """
    tokenizer = open_tokenizer(base)
    prompts = [token_ids(tokenizer, render(tokenizer, system, messages)) for messages in asked]
    told = chat_message(SYSTEM, system if served_system is None else served_system)
    with start_engine(gguf, threads=threads, slots=1, context=context) as running:
        rendered = [running.tokens([told, *messages]) for messages in asked]
        replies = [
            running.chat([told, *messages], max_tokens=serving.answer_tokens, logprobs=True) for messages in asked
        ]
    said = [reply.logprobs or [] for reply in replies]
    ends = [[tokenizer.eos_token_id] if reply.finish == "stop" else [] for reply in replies]
    completions = [
        [token for token, _ in answer if token not in end] + end for answer, end in zip(said, ends, strict=True)
    ]
    examples = [Example(prompt, answer) for prompt, answer in zip(prompts, completions, strict=True)]
    judged = likelihoods(base, adapter, examples, threads)
    pairs = [
        (logprob, likely.said)
        for answer, tokens in zip(said, judged, strict=True)
        for (_, logprob), likely in zip(answer, tokens, strict=False)
    ]
    return Parity(
        prompts=len(prompts),
        rendered_otherwise=sum(ours != theirs for ours, theirs in zip(prompts, rendered, strict=True)),
        tokens=sum(map(len, completions)),
        chosen_otherwise=sum(likely.best - likely.said > bound for answer in judged for likely in answer),
        difference=max((abs(ours - theirs) for ours, theirs in pairs), default=None),
    )


def parity_criteria(found: Parity | None, bound: float, problem: str = "") -> list[Criterion]:
    """One line for each way in which the stacks may differ; `problem` says why nothing was found."""
    rendered = None if found is None or not found.prompts else float(found.rendered_otherwise)
    chosen = None if found is None or not found.tokens else float(found.chosen_otherwise)
    difference = None if found is None else found.difference
    over = "" if found is None else f"of {found.prompts} golden prompts"
    told = "" if found is None else f"of {found.tokens:,} tokens answered greedily, near ties apart"
    problem = problem or "nothing was answered"
    lines = [
        ("parity_rendered_otherwise", rendered, 0.0, over),
        ("parity_chosen_otherwise", chosen, 0.0, told),
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
        for name, observed, limit, note in lines
    ]
