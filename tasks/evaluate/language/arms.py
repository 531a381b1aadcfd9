"""Ways to answer questions on documents, side by side: without passages, with them, by extracts, and tuned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tasks.core.progress import progress_step
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.inference import build_conversation, message_in, score
from tasks.evaluate.language.response_cache import cached_responses
from tasks.evaluate.language.responses import EngineOptions
from tasks.knowledge.answers.abstention import passage_text
from tasks.knowledge.answers.answerer import Answer, AnswerBy, Answerer, Prepared, is_grounded, open_answerer
from tasks.knowledge.answers.relevance import Quotations, ndcg_at, recall_at, reciprocal_rank
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import Hit, KnowledgeSpec
from tasks.language.embedder import Embedder
from tasks.language.open_engine import model_file
from tasks.language.prompts import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NO_RANKING = dict.fromkeys(("recall_at_5", "reciprocal_rank", "ndcg_at_10"))
ADAPTER = "adapter"  # folder of a tuned candidate
ARMS = ("base", "prompt_only", "retrieval", "extractive")
METHODS = ("words", "vectors", "hybrid")
DEPTH = 10  # passages of a ranking that is measured
Scored = tuple["pd.DataFrame", dict[str, float]]  # scored answers, and their timings


class RememberingEmbedder(Embedder):
    """An embedder that encodes each text once: all arms search for the same questions."""

    def __init__(self, folder: Path, tokenizer: Path | None = None) -> None:
        super().__init__(folder, tokenizer)
        self._vectors: dict[tuple[str, ...], np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        key = tuple(texts)
        if key not in self._vectors:
            self._vectors[key] = super().encode(texts)
        return self._vectors[key]


@dataclass(frozen=True)
class Arms:
    """The arms of one evaluation, over the passages of its candidate's index."""

    run: EvaluationRun
    folder: Path  # of the candidate
    compared: int = 60  # questions for a model beside the served arm: on a CPU each answer takes seconds

    @property
    def _knowledge(self) -> KnowledgeSpec:
        knowledge = self.run.spec.knowledge
        assert knowledge is not None
        return knowledge

    @cached_property
    def _embedder(self) -> Embedder:
        return RememberingEmbedder(self._knowledge.embedder.folder, self._knowledge.embedder.tokenizer)

    @cached_property
    def _quotations(self) -> Quotations:
        return Quotations(self._search.passages())

    @cached_property
    def _search(self) -> KnowledgeSearch:
        return KnowledgeSearch(
            self._knowledge.index.folder, self._embedder, word_weight=self._knowledge.settings.word_weight
        )

    def side_by_side(self, pairs: pd.DataFrame) -> dict[str, Scored]:
        """The answers of each arm by name: the served one's to all pairs, those of models beside it to a sample.

        Where no right answer is known, or nothing is to be compared, only the served arm answers.
        """
        names = [*ARMS, *(["tuned"] if (self.folder / ADAPTER).is_dir() else [])]
        if not (self.compared and _has_right_answers(pairs)):
            names = [self.served_arm]
        sample = self.run.sample(self.compared)
        return {name: self._arm(name, pairs if name in ("extractive", self.served_arm) else sample) for name in names}

    def _arm(self, name: str, pairs: pd.DataFrame) -> Scored:
        base = self.run.spec.base.served
        if name == "base":
            return self.without_passages(name, base, pairs, NO_PROMPT)
        if name == "prompt_only":
            return self.without_passages(name, base, pairs, self.run.spec.chat.prompt)
        model = model_file(self.folder) if name == "tuned" else base
        return self.answers(name, model, pairs, self.answerer("extract" if name == "extractive" else "model"))

    def served(self, pairs: pd.DataFrame) -> Scored:
        """The answers to these pairs by the arm that is served."""
        return self._arm(self.served_arm, pairs)

    @property
    def served_arm(self) -> str:
        """The name of the arm by which the case answers."""
        if self._knowledge.settings.answer_by == "extract":
            return "extractive"
        return "tuned" if (self.folder / ADAPTER).is_dir() else "retrieval"

    @property
    def served_answerer(self) -> Answerer:
        """The answerer of the candidate, as it is served."""
        return self.answerer(self._knowledge.settings.answer_by)

    def champion(self, model: Path, pairs: pd.DataFrame, prompt: Prompt | None) -> Scored:
        """The answers of the champion in the folder of its model, with its own passages and embedder."""
        return self.answers("champion", model, pairs, self.champion_answerer(model.parent), prompt)

    def champion_answerer(self, folder: Path) -> Answerer:
        """The answerer of the champion's release."""
        sealed = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sealed"]
        same = sealed["knowledge"]["embedder"] == self._knowledge.embedder.digest
        embedder = self._embedder if same else RememberingEmbedder(folder / "embedder")
        return open_answerer(folder, embedder)

    def answerer(self, answer_by: AnswerBy) -> Answerer:
        """The answerer of the candidate, which answers in a way of its own or another."""
        return open_answerer(self.folder, self._embedder, answer_by=answer_by)

    def answers(
        self, variant: str, model: Path, pairs: pd.DataFrame, answerer: Answerer, prompt: Prompt | None = None
    ) -> Scored:
        """Scored answers from passages, by a model or by extraction, exactly as they are served; and their timings.

        Raises: DataError when the model can't be read, or a message does not fit; Unavailable when the engine ends.
        """
        import pandas as pd

        with progress_step(f"ask {variant.replace('_', ' ')}") as step:
            begun, seconds, prepared = perf_counter(), [], []
            for messages in pairs["messages"]:
                started = perf_counter()
                prepared.append(answerer.prepare(json.loads(messages)))
                seconds.append(perf_counter() - started)
            timing = {
                "latency_p50_ms": 1000 * median(seconds),
                "seconds_per_answer": (perf_counter() - begun) / len(pairs),
            }
            used = prompt or self.run.spec.chat.prompt
            conversations = [build_conversation(json.dumps(each.messages), used) for each in prepared if each.messages]
            replies: list[dict[Any, Any]] = []
            if conversations:
                options = self._options(used)
                table, engine_timing = cached_responses(model, conversations, options, self.run.state)
                replies = table.to_dict("records")
                timing = {name: timing[name] + value for name, value in engine_timing.items()}
            rows, answers = _merge(answerer, prepared, replies, seconds)
            scored = score(pairs, pd.DataFrame(rows), self.run.scoring, variant)
            scored = self._with_evidence(scored, prepared, answers)
            step.figure = f"{len(pairs)} questions, {sum(each.abstained for each in answers)} abstentions"
        return scored, timing

    def without_passages(self, name: str, model: Path, pairs: pd.DataFrame, prompt: Prompt) -> Scored:
        """Scored answers of a model without passages; what it states is held against the passages all the same."""
        with progress_step(f"ask {name.replace('_', ' ')}") as step:
            conversations = [build_conversation(each, prompt) for each in pairs["messages"]]
            responses, timing = cached_responses(model, conversations, self._options(prompt), self.run.state)
            scored = score(pairs, responses, self.run.scoring, name)
            count = self._knowledge.settings.passages
            hits = [self._search.search(message_in(each), count=count) for each in pairs["messages"]]
            scored["grounded"] = [
                None if abstained else float(_is_grounded(text, found))
                for text, abstained, found in zip(scored["text"], scored["abstained"], hits, strict=True)
            ]
            step.figure = f"{len(pairs)} questions"
        return scored, timing

    def retrieval(self, pairs: pd.DataFrame) -> dict[str, dict[str, float]]:
        """The metrics of each method of search, over the questions with evidence."""
        metrics = {}
        with progress_step("measure the retrieval") as step:
            for method in METHODS:
                rows = [
                    row for each in pairs.to_dict("records") if (row := self._ranking(each, method=method)) is not None
                ]
                means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}
                names = {"reciprocal_rank": "mrr"}
                metrics[method] = {names.get(name, name): value for name, value in means.items()} | {"n": len(rows)}
            recalls = [f"{name} {each['recall_at_5']:.3f}" for name, each in metrics.items() if each["n"]]
            step.figure = ", ".join(recalls) or "no question names its passages"
        return metrics

    def _options(self, prompt: Prompt) -> EngineOptions:
        return EngineOptions(self.run.spec.serving, self.run.spec.chat.context, self.run.threads, prompt.parameters)

    def _ranking(self, pair: dict[Any, Any], method: str | None = None) -> dict[str, float] | None:
        """How a question's search ranks the relevant passages; None when no passage is known to be relevant."""
        relevant = self._relevant(pair)
        if not relevant:
            return None
        used = method or self._knowledge.settings.method
        hits = self._search.search(message_in(pair["messages"]), count=DEPTH, method=used)
        ranked = [hit.passage.passage_id for hit in hits]
        return {
            "recall_at_5": recall_at(ranked, relevant, 5),
            "reciprocal_rank": reciprocal_rank(ranked, relevant),
            "ndcg_at_10": ndcg_at(ranked, relevant, DEPTH),
        }

    def _relevant(self, pair: dict[Any, Any]) -> list[str]:
        return self._quotations.relevant(
            [(document, quote) for document, quote in json.loads(pair.get("evidence") or "[]")]
        )

    def _with_evidence(
        self, scored: pd.DataFrame, prepared: Sequence[Prepared], answers: Sequence[Answer]
    ) -> pd.DataFrame:
        """The scores with what is known of each answer's passages."""
        import pandas as pd

        rows = []
        for pair, question, answer in zip(scored.to_dict("records"), prepared, answers, strict=True):
            relevant = self._relevant(pair)
            texts = [passage_text(hit.passage) for hit in answer.citations]
            rows.append(
                {
                    **(self._ranking(pair) or NO_RANKING),
                    "citations": len(answer.citations) if relevant else 0,
                    "citations_right": sum(hit.passage.passage_id in relevant for hit in answer.citations),
                    "grounded": None if answer.abstained else float(is_grounded(answer.text, texts)),
                    "replaced": None if question.answer else not answer.grounded,
                    "abstained": answer.abstained,
                    "confidence": question.confidence,
                    "passages": json.dumps([hit.passage.passage_id for hit in question.hits]),
                }
            )
        table = pd.DataFrame(rows, index=scored.index)
        return scored.drop(columns=[name for name in table if name in scored]).join(table)


def _has_right_answers(pairs: pd.DataFrame) -> bool:
    """Whether any pair has a reference, facts that are required, or passages that answer it."""
    return bool(
        (pairs["answer"].str.strip() != "").any()
        or any(json.loads(text or "[]") for name in ("required_facts", "evidence") for text in pairs.get(name, ()))
    )


def _is_grounded(text: str, hits: Sequence[Hit]) -> bool:
    return is_grounded(text, [passage_text(hit.passage) for hit in hits])


def _merge(
    answerer: Answerer, prepared: Sequence[Prepared], replies: Sequence[dict[Any, Any]], seconds: Sequence[float]
) -> tuple[list[dict[str, Any]], list[Answer]]:
    """A row a question, with the reply of the model where it was sent to one, and the answers that are served."""
    rest = iter(replies)
    rows, answers = [], []
    for question, spent in zip(prepared, seconds, strict=True):
        reply = next(rest) if question.answer is None else {}
        answer = answerer.finish(question, str(reply.get("text", "")))
        empty = {"tokens_in": 0, "tokens_cached": 0, "tokens_out": 0, "seconds": spent, "finish": "stop"}
        rows.append({**empty, **reply, "text": answer.text})
        answers.append(answer)
    return rows, answers
