"""Which passages answer a question: those of its documents that contain the words of its quotations."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tasks.knowledge.results import Passage

LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")  # of Markdown: its text counts, not its address
WORD = re.compile(r"[^\W_]+")
SHORTEST_HALF = 4  # words; half of a shorter quotation says too little
Quotation = tuple[str, str]  # document and quote


class Quotations:
    """Finds the passages that contain a quotation; blanks, punctuation and Markdown marks don't count."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for passage in passages:
            text = f"{passage.heading} {passage.text}"
            self._passages[passage.document].append((passage.passage_id, _words(text)))

    def passages(self, quotation: Quotation) -> list[str]:
        """The ids of the passages that have the whole quotation; of one that a border cuts, those with half of it."""
        document, quote = quotation
        words = _words(quote).split()
        if not words:
            return []
        passages = self._passages.get(document, ())
        if whole := [passage_id for passage_id, text in passages if _has(text, words)]:
            return whole
        if (half := math.ceil(len(words) / 2)) < SHORTEST_HALF:
            return []
        return [passage_id for passage_id, text in passages if _has(text, words[:half]) or _has(text, words[-half:])]

    def relevant(self, evidence: Iterable[Quotation]) -> list[str]:
        """The ids of all passages that the evidence of a question names, each once."""
        return list(dict.fromkeys(each for quotation in evidence for each in self.passages(quotation)))

    def missing(self, questions: Mapping[str, Sequence[Quotation]]) -> list[str]:
        """A sentence for each quotation that no longer stands in its document; `questions`: evidence by question."""
        return [
            f"{question[:80]!r}: {document} "
            + (f"does not say {quote[:120]!r}" if document in self._passages else "is no document")
            for question, evidence in questions.items()
            for document, quote in evidence
            if not self.passages((document, quote))
        ]


def _words(text: str) -> str:
    return " ".join(WORD.findall(LINK.sub(r"\1", text).lower()))


def _has(text: str, words: Sequence[str]) -> bool:
    return f" {' '.join(words)} " in f" {text} "


def recall_at(ranked: Sequence[str], relevant: Sequence[str], count: int) -> float:
    """1 when a relevant passage is among the first `count`, else 0; the mean over questions is recall.

    The quotations of a question are places that say the same, and one of them answers (success_k in trec_eval).
    """
    return float(not set(relevant).isdisjoint(ranked[:count]))


def reciprocal_rank(ranked: Sequence[str], relevant: Sequence[str]) -> float:
    """One over the place of the first relevant passage; 0 without one."""
    return next((1 / place for place, each in enumerate(ranked, start=1) if each in relevant), 0.0)


def ndcg_at(ranked: Sequence[str], relevant: Sequence[str], count: int) -> float:
    """Normalised discounted cumulative gain of the first `count`, a relevant passage gains 1.

    Source: Jaervelin and Kekaelaeinen (2002), as trec_eval computes it.
    """
    gain = sum(1 / math.log2(place + 1) for place, each in enumerate(ranked[:count], start=1) if each in relevant)
    return gain / sum(1 / math.log2(place + 1) for place in range(1, min(count, len(set(relevant))) + 1))
