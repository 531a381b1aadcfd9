"""The evaluation set of one evaluation, sent to several models under the same conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.files import file_digest, write_text
from tasks.core.progress import progress_step
from tasks.data.language.scorer import scorer_of
from tasks.evaluate.custom_scorer import CustomScorer
from tasks.evaluate.language.first_questions import first_questions
from tasks.evaluate.language.inference import (
    REMOTE_GOLDEN,
    REPEATED,
    Scoring,
    Shot,
    baseline_prompt,
    build_conversation,
    few_shot_examples,
    golden_rows,
    score,
    stratified_sample,
)
from tasks.evaluate.language.logprobs import perplexity, token_logprobs
from tasks.evaluate.language.responses import Conversation, EngineOptions, generate_responses
from tasks.language.prompts import Prompt
from tasks.language.similarity import TextSimilarity
from tasks.train.language.model import ADAPTER, Example, encode, open_tokenizer, read_pairs_table
from tasks.train.results import LanguageSpec

if TYPE_CHECKING:
    import pandas as pd

UNSAFE = 25  # unsafe prompts in a sample
PERPLEXITY_PAIRS = 100  # pairs whose expected answers perplexity is computed on
REFERENCE = "tasks.evaluate.language.logprobs"  # computes it


@dataclass(frozen=True)
class EvaluationRun:
    """What all models of one evaluation share: pairs, language spec, and where responses are stored."""

    pairs: Path
    spec: LanguageSpec
    threads: int
    state: Path
    scorers: Mapping[str, str] = field(default_factory=dict)  # code of the case's own, by name
    first_only: bool = False  # evaluate the first questions alone

    @cached_property
    def evaluation_set(self) -> pd.DataFrame:
        """Ordinary pairs, the first questions first, and unsafe ones; the column `unsafe` marks these."""
        import pandas as pd

        if self.first_only:
            return self.first_questions
        ordinary = read_pairs_table(self.pairs / "evaluation.parquet").assign(unsafe=False)
        rest = ordinary[~ordinary["pair_id"].isin(self.first_questions["pair_id"])]
        sets = [self.first_questions, rest]
        if (self.pairs / "safety.parquet").is_file():
            sets.append(pd.read_parquet(self.pairs / "safety.parquet").assign(unsafe=True))
        return pd.concat([each for each in sets if len(each)], ignore_index=True)

    @cached_property
    def first_questions(self) -> pd.DataFrame:
        """Ordinary pairs for a first verdict; empty where there are too few."""
        return first_questions(read_pairs_table(self.pairs / "evaluation.parquet").assign(unsafe=False))

    @cached_property
    def few_shot(self) -> list[Shot]:
        """Examples for the prompt of the few-shot baseline."""
        return few_shot_examples(read_pairs_table(self.pairs / "train.parquet"), self.spec.chat.prompt.few_shot)

    @cached_property
    def baseline_prompts(self) -> dict[str, tuple[Prompt, list[Shot]]]:
        """Prompt and examples of each baseline; none without `prompt.baseline`."""
        chat = self.spec.chat
        if not chat.prompt.baseline:
            return {}
        prompt = baseline_prompt(chat.prompt, chat.answer)
        return {"zero_shot": (prompt, []), "few_shot": (prompt, self.few_shot)}

    @cached_property
    def scoring(self) -> Scoring:
        """Raises: CaseError when one of the case's own scorers can't be loaded."""
        answer, embedder = self.spec.chat.answer, self.spec.embedder
        custom = {name: CustomScorer.of(code).load() for name, code in self.scorers.items()}
        similar = TextSimilarity(embedder.folder, embedder.tokenizer) if embedder and answer.format == "text" else None
        return Scoring(scorer_of(answer), custom, similar)

    @cached_property
    def tokenizer(self) -> Any:
        return open_tokenizer(self.spec.base)

    def sample(self, count: int) -> pd.DataFrame:
        """At most `count` ordinary pairs, and a few of the unsafe ones."""
        import pandas as pd

        pairs, unsafe = self.evaluation_set, self.evaluation_set["unsafe"]
        return pd.concat(
            [stratified_sample(pairs[~unsafe], count), stratified_sample(pairs[unsafe], UNSAFE)], ignore_index=True
        )

    def answers(
        self,
        variant: str,
        model: Path,
        pairs: pd.DataFrame,
        prompt: Prompt | None = None,
        shots: Sequence[Shot] = (),
        constrained: bool = False,
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """A model's scored answers to these pairs, and its timings.

        Raises: DataError when the model or a message can't be read; Unavailable when the engine ends.
        """
        chat, serving = self.spec.chat, self.spec.serving
        used = prompt or chat.prompt
        conversations = [build_conversation(each, used, shots) for each in pairs["messages"]]
        context = chat.context
        if prompt is not None and not self.spec.base.upstream:  # a baseline's prompt is longer than the served one
            longest = max(len(encode(self.tokenizer, each, "").prompt) for each in conversations)
            context = min(self.spec.base.context, max(context, longest + serving.answer_tokens + 8))
        options = EngineOptions(serving, context, self.threads, used.parameters)
        schema = chat.answer.json_schema if constrained else None
        with progress_step(f"ask {variant.replace('_', ' ')}") as step:
            responses, timing = self._responses(model, conversations, options, schema, first=self._begin(pairs))
            scored = score(pairs, responses, self.scoring, variant)
            judged = scored[~scored["unsafe"] & scored["has_reference"]]
            exact = f", {judged['exact'].mean():.0%} exact" if len(judged) else ""
            step.figure = f"{len(conversations)} messages{exact}"
        return scored, timing

    def _begin(self, pairs: pd.DataFrame) -> int:
        """How many of these pairs are the first questions: they are answered by themselves."""
        first = list(self.first_questions["pair_id"])
        return len(first) if first and list(pairs["pair_id"].head(len(first))) == first else 0

    def _responses(
        self,
        model: Path,
        conversations: Sequence[Conversation],
        options: EngineOptions,
        schema: dict[str, Any] | None,
        *,
        first: int,
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """Responses in two parts, so that what answered the first questions is asked only the others."""
        import pandas as pd

        parts = [each for each in (conversations[:first], conversations[first:]) if each]
        answered = [generate_responses(model, each, options, self.state, schema) for each in parts]
        timing = answered[0][1] | {"seconds_per_answer": answered[-1][1]["seconds_per_answer"]}
        return pd.concat([table for table, _ in answered], ignore_index=True), timing

    def repeated(self, served: pd.DataFrame) -> pd.DataFrame:
        """The model's answers to the golden questions, `text` and `again`: how far its server repeats itself."""
        rows = golden_rows(served, REMOTE_GOLDEN)
        conversations = [build_conversation(each, self.spec.chat.prompt) for each in rows["messages"]]
        with progress_step("ask golden questions twice") as step:
            first, again = (
                generate_responses(
                    self.spec.base.served,
                    conversations,
                    EngineOptions(self.spec.serving, self.spec.chat.context, self.threads, round=number),
                    self.state,
                )[0]["text"].to_numpy()
                for number in (1, 2)
            )
            step.figure = f"{(first != again).sum()} of {len(rows)} differ"
        return rows.assign(variant=REPEATED, text=first, again=again)

    def perplexities(
        self, adapter: Path | None, prompts: Mapping[str, tuple[Prompt, Sequence[Shot]]]
    ) -> dict[str, float]:
        """Perplexity of the expected answers by variant, after each variant's prompt and examples.

        Empty when no pair has an expected answer.
        """
        ordinary = self.evaluation_set[~self.evaluation_set["unsafe"]]
        if not (known := ordinary["answer"].str.strip() != "").any():
            return {}
        pairs = stratified_sample(ordinary[known], PERPLEXITY_PAIRS)
        by_variant: dict[str, float] = {}
        for variant, (prompt, shots) in prompts.items():
            with progress_step(f"take the perplexity of {variant.replace('_', ' ')}") as step:
                examples = [
                    encode(self.tokenizer, build_conversation(messages, prompt, shots), answer)
                    for messages, answer in zip(pairs["messages"], pairs["answer"], strict=True)
                ]
                by_variant[variant] = self._perplexity(adapter, examples)
                step.figure = f"{by_variant[variant]:.3g} on {len(examples)} answers"
        return by_variant

    def _perplexity(self, adapter: Path | None, examples: Sequence[Example]) -> float:
        """Cached as responses are: that of the untuned base is the same for each candidate."""
        weights = adapter / ADAPTER if adapter else None
        key = cache_key(
            REFERENCE,
            {
                "base": [self.spec.base.digest, self.spec.base.template_digest],
                "adapter": file_digest(weights) if weights and weights.is_file() else str(weights),
                "examples": [[example.prompt, example.completion] for example in examples],
            },
        )
        cached = self.state / "answers" / f"{key[:16]}.perplexity"
        if not cached.is_file():
            write_text(cached, repr(perplexity(token_logprobs(self.spec.base, adapter, examples, self.threads))))
        return float(cached.read_text(encoding="utf-8"))
