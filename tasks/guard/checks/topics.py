"""What a text is about, and in which language it is."""

from __future__ import annotations

import re
import threading
from collections import Counter
from pathlib import Path

from tasks.core.errors import CaseError
from tasks.guard.config import LanguageRule, TopicsRule
from tasks.guard.results import Finding
from tasks.guard.subject import Subject

# Frequent short words that no other of these languages shares.
_FREQUENT = {
    "en": "the and is are was were of to you your what how this that with for have not can which from",
    "de": "der die das und ist nicht ich ein eine mit auf für den dem sie wie von zu wird auch oder bei",
    "es": "el los las es y que por una con para como está del se su más pero cuál qué dónde son",
    "fr": "le les est et que des une pour dans avec sur pas ce qui vous je nous du au sont où",
    "it": "il gli è e che di per una con non del della sono come ma più questo alla anche nel",
    "pt": "o os as é e não que um uma para com por mais do da em seu como você são",
    "nl": "het een van en is niet dat ik je de voor met zijn op te naar ook maar aan wat",
    "pl": "jest nie się na że do to jak ale czy dla od przez tak są był który",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _code, _words in _FREQUENT.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_code)
_SCRIPTS = {
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "zh": re.compile(r"[\u4e00-\u9fff]"),
}
CLEAR = 3  # frequent words of a language, at least, and twice as many as of the next


def language_of(text: str) -> str:
    """The code of a text's language; empty where it is not clear, as for a few words, names or codes."""
    letters = sum(map(str.isalpha, text))
    if not text.isascii():
        for code, script in _SCRIPTS.items():
            if letters and len(script.findall(text)) >= 0.3 * letters:
                return code
    counts = Counter(code for word in re.findall(r"[^\W\d_]+", text.lower()) for code in _LANGUAGES_OF.get(word, ()))
    (best, most), *rest = [*counts.most_common(2), ("", 0)]
    second = rest[0][1] if rest else 0
    return best if most >= CLEAR and most >= 1.5 * second else ""


class LanguageCheck:
    """Finds a text in a language that is not allowed; one whose language is not clear passes."""

    def __init__(self, rule: LanguageRule) -> None:
        self._allowed = frozenset(rule.languages)

    def find(self, subject: Subject) -> Finding | None:
        language = language_of(subject.text)
        return Finding(note=f"language {language}") if language and language not in self._allowed else None


class TopicsCheck:
    """Finds a text that is near the examples of a denied topic, or near no example of the allowed ones."""

    is_slow = True

    def __init__(self, rule: TopicsRule, embedder: Path | None, tokenizer: Path | None = None) -> None:
        """Raises: CaseError without an embedder."""
        if embedder is None:
            raise CaseError(
                "A rule on topics needs an embedder.", todo="Set serve.embedder in the case, or knowledge.embedder."
            )
        from tasks.language.embedder import Embedder

        self._rule, self._lock = rule, threading.Lock()
        self._embedder = Embedder(embedder, tokenizer)  # the first text must not wait for it
        named = [(name, text) for name, texts in sorted(rule.topics.items()) for text in texts]
        self._names = [name for name, _ in named]
        self._examples = self._embedder.encode([text for _, text in named])

    def find(self, subject: Subject) -> Finding | None:
        with self._lock:  # an embedder is not thread-safe
            similarities = self._examples @ self._embedder.encode([subject.text])[0]
        best = int(similarities.argmax())
        score, is_near = float(similarities[best]), float(similarities[best]) >= self._rule.threshold
        if self._rule.deny and is_near:
            return Finding(score=score, note=f"topic {self._names[best]}")
        if not self._rule.deny and not is_near:
            return Finding(score=score, note="no allowed topic")
        return None
