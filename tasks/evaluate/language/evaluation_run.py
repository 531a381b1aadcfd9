"""The questions of one judgement, asked of several models on the same terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.files import file_digest, write_text
from tasks.core.progress import progress_step
from tasks.data.config import ChatSpec
from tasks.data.results import BaseModelFiles
from tasks.evaluate.language.inference import Shown, build_conversation, examples_of, score, stratified_sample
from tasks.evaluate.language.logprobs import likelihoods, perplexity
from tasks.evaluate.language.responses import generate_responses
from tasks.language.answer_scoring import Scorer
from tasks.train.config import Serving
from tasks.train.language.model import ADAPTER, Example, encode, open_tokenizer, read_pairs_table

if TYPE_CHECKING:
    import pandas as pd

UNSAFE = 25  # unsafe prompts among some of the questions
LIKELY = 100  # pairs whose right answers perplexity is taken of
REFERENCE = "tasks.evaluate.language.logprobs"  # computes it


@dataclass(frozen=True)
class EvaluationRun:
    """What all models of one judgement share: the questions, how they are asked, and where replies are kept."""

    pairs: Path
    base: BaseModelFiles
    talk: ChatSpec
    serving: Serving
    threads: int
    state: Path

    @cached_property
    def questions(self) -> pd.DataFrame:
        """Ordinary pairs, and the unsafe ones, marked as such."""
        import pandas as pd

        sets = [read_pairs_table(self.pairs / "evaluation.parquet").assign(unsafe=False)]
        if (self.pairs / "safety.parquet").is_file():
            sets.append(pd.read_parquet(self.pairs / "safety.parquet").assign(unsafe=True))
        return pd.concat([each for each in sets if len(each)], ignore_index=True)

    @cached_property
    def shown(self) -> list[Shown]:
        """Examples for the base that is shown some."""
        return examples_of(read_pairs_table(self.pairs / "train.parquet"), self.talk.prompt.few_shot)

    @cached_property
    def scorer(self) -> Scorer:
        return Scorer(self.talk.answer.json_schema, self.talk.answer.stated, self.talk.answer.abstain)

    @cached_property
    def tokenizer(self) -> Any:
        return open_tokenizer(self.base)

    def some(self, count: int) -> pd.DataFrame:
        """Fewer of them, and a few of the unsafe ones."""
        import pandas as pd

        unsafe = self.questions["unsafe"]
        return pd.concat(
            [stratified_sample(self.questions[~unsafe], count), stratified_sample(self.questions[unsafe], UNSAFE)],
            ignore_index=True,
        )

    def answers(
        self,
        variant: str,
        model: Path,
        pairs: pd.DataFrame,
        system: str | None = None,
        shown: Sequence[Shown] = (),
        constrained: bool = False,
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """What a model answers to these pairs, scored, and the seconds it took.

        Raises: DataError when the model or a message can't be read; Unavailable when the engine ends.
        """
        told = self.talk.prompt.system if system is None else system
        asked = [build_conversation(each, told, shown) for each in pairs["messages"]]
        context = self.talk.context
        if system is not None:  # a baseline's prompt is longer than what is served has to read
            longest = max(len(self._encode(each, told, shown, "").prompt) for each in pairs["messages"])
            context = min(self.base.context, max(context, longest + self.serving.answer_tokens + 8))
        schema = self.talk.answer.json_schema if constrained else None
        with progress_step(f"ask {variant.replace('_', ' ')}") as telling:
            replies, timing = generate_responses(model, asked, self.serving, context, self.threads, self.state, schema)
            scored = score(pairs, replies, self.scorer, variant)
            right = scored.loc[~scored["unsafe"], "exact"].mean()
            telling.figure = f"{len(asked)} messages, {right:.0%} exact"
        return scored, timing

    def perplexities(
        self, adapter: Path | None, prompts: Mapping[str, tuple[str, Sequence[Shown]]]
    ) -> dict[str, float]:
        """Perplexity of held-out right answers, by variant, after each one's system prompt and examples."""
        pairs = stratified_sample(self.questions[~self.questions["unsafe"]], LIKELY)
        found = {}
        for variant, (system, shown) in prompts.items():
            with progress_step(f"take the perplexity of {variant.replace('_', ' ')}") as telling:
                examples = [
                    self._encode(messages, system, shown, answer)
                    for messages, answer in zip(pairs["messages"], pairs["answer"], strict=True)
                ]
                found[variant] = self._perplexity(adapter, examples)
                telling.figure = f"{found[variant]:.3g} on {len(examples)} answers"
        return found

    def _perplexity(self, adapter: Path | None, examples: Sequence[Example]) -> float:
        """Kept as replies are: the untuned base's need not be computed for each candidate."""
        weights = adapter / ADAPTER if adapter else None
        key = cache_key(
            REFERENCE,
            {
                "base": [self.base.digest, self.base.template_digest],
                "adapter": file_digest(weights) if weights and weights.is_file() else str(weights),
                "examples": [[example.prompt, example.completion] for example in examples],
            },
        )
        kept = self.state / "answers" / f"{key[:16]}.perplexity"
        if not kept.is_file():
            write_text(kept, repr(perplexity(likelihoods(self.base, adapter, examples, self.threads))))
        return float(kept.read_text(encoding="utf-8"))

    def _encode(self, messages: str, system: str, shown: Sequence[Shown], answer: str) -> Example:
        _, *turns = build_conversation(messages, system, shown)
        return encode(self.tokenizer, system, turns, answer)
