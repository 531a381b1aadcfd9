"""A text that arrives in pieces: what is passed on was checked with what stands around it, and is never taken back.

Text is passed on up to a cut: a place between two plain words with enough text behind it. No value that a rule finds
lies across a cut: a number, an address or a key is no plain word, and a phrase is shorter than the text behind the cut.
So a stream passes what a check of the whole text passes, wherever its pieces end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from tasks.guard.config import Stage
from tasks.guard.engine import GuardEngine, conclude
from tasks.guard.results import Context, GuardResult, Outcome

AFTER_DIGITS = 256  # characters behind a cut with digits before it: an account number has letters and spaces
CONTEXT = 320  # characters before the text that is checked
# Between two words of two to forty letters, which may have a sign of punctuation; the second is seen to its end.
_CUT = re.compile(r"(?<=\s)(?=[\"'(\[*_`]?[^\W\d_]{2,40}[\"')\]*_`]?[.,;:!?]?\s)")
_BEFORE = re.compile(r"(?:\A|\s)[\"'(\[*_`]?[^\W\d_]{2,40}[\"')\]*_`]?[.,;:!?]?\s+\Z")
_DIGIT = re.compile(r"\d")


class GuardedText:
    """One answer. `push` and `finish` return what may be sent; after a refusal, nothing more."""

    def __init__(self, engine: GuardEngine, stage: Stage = "output", context: Context | None = None) -> None:
        self._engine = engine
        self._local, self._whole = engine.split(stage)
        self._stage, self._context = stage, context or Context()
        self.holds = self._whole.can_change(stage)  # until the end: its rules judge the whole text
        self._reach = self._local.reach(stage)
        self._text = ""  # all of it, for the rules that judge it whole
        self._start = self._sent = 0  # of the window that is checked next; of what was sent
        self._is_finished = False
        self._tried = 0  # the length at which the last cut was searched
        self.results: list[GuardResult] = []  # to count
        self.refusal: GuardResult | None = None

    @property
    def pending(self) -> int:
        """Characters that were not sent."""
        return len(self._text) - self._sent

    @property
    def is_empty(self) -> bool:
        """Whether no rule applies."""
        return not (self._local.guardrails.rules(self._stage) or self._whole.guardrails.rules(self._stage))

    def push(self, piece: str) -> str:
        """Take a piece, and return what may be sent."""
        if self.refusal:
            return ""
        self._text += piece
        if self.holds:
            return ""
        cut = max(self._cuts(), default=self._sent)
        return self._pass(cut) if cut > self._sent else ""

    def finish(self, context: Context | None = None) -> str:
        """Check the rest, and the whole; return what may be sent."""
        self._context = context or self._context
        if self.refusal or self._is_finished:
            return ""
        self._is_finished = True
        if self.holds:
            judged = self._engine.check(self._text, self._stage, context=self._context)
            self.refusal = judged if judged.action == "refuse" else None
            self._sent = len(self._text)
            self.results.append(judged)
            return "" if self.refusal else judged.text
        self.results.append(self._whole.check(self._text, self._stage, context=self._context))
        return self._pass(len(self._text), is_end=True)

    def _cuts(self) -> Iterator[int]:
        """Places where the text may be cut, beyond what was sent, with enough text behind."""
        end = len(self._text) - self._reach
        for at in self._places(max(self._sent + 1, self._tried - AFTER_DIGITS), end + 1):
            seen = len(self._text) - at >= AFTER_DIGITS
            if seen or not _DIGIT.search(self._text, max(at - AFTER_DIGITS, 0), at):
                yield at
        self._tried = max(end, 0)

    def _places(self, begin: int, end: int) -> Iterator[int]:
        """Places between two plain words, from `begin` to before `end`."""
        for match in _CUT.finditer(self._text, begin):
            at = match.start()
            if at >= end:
                return
            if _BEFORE.search(self._text, max(at - 60, 0), at):
                yield at

    def _pass(self, cut: int, *, is_end: bool = False) -> str:
        window = self._text[self._start :]
        context = replace(self._context, offset=self._start)
        checked = self._local.check(window, self._stage, context=context)
        cut = self._before_spans(cut, checked) if not is_end else cut
        if cut <= self._sent and not is_end:
            self._tried = 0
            return ""
        first = self._first_refused(checked, cut)
        if first is not None:
            cut = self._last_cut(first)
        begin, end = self._sent - self._start, cut - self._start
        part = conclude(
            window[begin:end],
            self._local.guardrails.rules(self._stage),
            [_within(outcome, begin, end) for outcome in checked.outcomes],
        )
        if first is not None or checked.action == "refuse":
            self.refusal = checked if first is not None or any(each.error for each in checked.fired) else None
        self.results.append(checked if self.refusal else part)
        self._sent = cut
        self._move_window(checked)
        return "" if self.refusal and first is None else part.text

    def _first_refused(self, checked: GuardResult, cut: int) -> int | None:
        """Where the first refused place begins that lies before the cut."""
        starts = [
            self._start + span.start
            for outcome in checked.fired
            if outcome.is_enforced and outcome.action == "refuse"
            for span in outcome.spans
        ]
        first = min((start for start in starts if start < cut), default=None)
        return None if first is None else max(first, self._sent)

    def _last_cut(self, before: int) -> int:
        """The last place between two words before a refused one; what was sent stays sent."""
        text = self._text
        while before > self._sent and not text[before - 1].isspace():
            before -= 1
        return before

    def _before_spans(self, cut: int, checked: GuardResult) -> int:
        """The cut, or one before the value that lies across it."""
        spans = [span for outcome in checked.fired for span in outcome.spans]
        while crossed := [s for s in spans if self._start + s.start < cut < self._start + s.end]:
            start = self._start + min(span.start for span in crossed)
            cut = max(self._places(self._sent + 1, start + 1), default=self._sent)
            if cut == self._sent:
                break
        return cut

    def _move_window(self, checked: GuardResult) -> None:
        """Begin the next window at a cut that lies far enough before what was sent, and within no found place."""
        spans = [span for outcome in checked.fired for span in outcome.spans]
        within = [(self._start + span.start, self._start + span.end) for span in spans]
        places = self._places(self._start + 1, self._sent - CONTEXT)
        free = (at for at in places if not any(start < at < end for start, end in within))
        self._start = max(free, default=self._start)


def _within(outcome: Outcome, begin: int, end: int) -> Outcome:
    """An outcome for a part of the text, with positions in the part."""
    if not outcome.spans:
        return outcome
    spans = tuple(
        span._replace(start=max(span.start - begin, 0), end=min(span.end, end) - begin)
        for span in outcome.spans
        if span.start < end and span.end > begin
    )
    return replace(outcome, spans=spans, fired=bool(spans))
