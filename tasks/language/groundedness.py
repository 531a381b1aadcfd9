"""Groundedness of an answer: what it states must stand in the passages that it comes from.

Numbers, names, codes and commands are compared word by word; that catches what small models invent most. A negation, or
two facts that are exchanged within a passage, is not caught (docs/concepts/answers-from-documents.md has the figures).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tasks.language.content_words import SENTENCE_END, content_words, sentences

NUMBER_WORDS = {
    **{"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"},
    **{"eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12"},
}
# Each of these reads a character a constant number of times, whatever the text: possessive, or bounded.
CODE_SPAN = re.compile(r"(?<!`)`++([^`]++)`++")
CITATION = re.compile(r"\[\d{1,2}\]")  # a passage's number, not a statement
LIST_NUMBER = re.compile(r"^[^\S\n]*+\d{1,2}[.)]\s+", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]{0,60}(?:\.\d+)*(?!\w)")
CODE = re.compile(  # one group, so that `split` gives the codes and what stands between them
    r"(https?://[^\s<>)\]]+|(?:\$|(?<![\w./@-])(?<!::))[\w.-]*(?:[_/@]|\w\.\w|::)[\w./:@-]*\w|(?<!\w)--?[a-zA-Z][\w-]+"
    r"|(?<!\w)[^\W\d]*+\d[^\Wa-zA-Z]*+[a-zA-Z]\w*+|(?<![a-zA-Z])[a-zA-Z]++\d\w*+)"
)
NAME = re.compile(r"\b(?:[A-Z][a-z]+[A-Z]\w*|[A-Z]{2,}\w*|[A-Z][\w']+)\b")
CAPITAL = re.compile(r"[A-Z]")  # each name has one
NO_NAMES = frozenset(
    ("I", "Yes", "No", "Note", "However", "Also", "The", "A", "An", "This", "That", "These", "It", "If")
)
LONGEST = 60  # characters of a number
SUPPORT = 0.5  # share of a sentence's content words that one passage must have
TYPOGRAPHY = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2212", "''\"\"---")


def unsupported(answer: str, passages: Sequence[str]) -> list[str]:
    """The numbers, names, codes and commands of an answer that stand in no passage, in order and each once."""
    answer, *passages = (_plain(text) for text in (answer, *passages))
    if "[" in answer:
        answer = CITATION.sub(" ", answer)
    answer = LIST_NUMBER.sub("", answer)
    together = "\n".join(passages)
    words, numbers = _words(together), _numbers(together)
    lacking: dict[str, None] = {}
    known = [(_squeeze(passage), _parts(passage)) for passage in passages]
    for span in dict.fromkeys(CODE_SPAN.findall(answer) if "`" in answer else ()):
        if not any(_stands(span, squeezed, parts) for squeezed, parts in known):
            lacking[" ".join(span.split())] = None
    prose = CODE_SPAN.sub(" ", answer) if "`" in answer else answer
    squeezed = _squeeze(together)
    pieces = CODE.split(prose)
    for code in dict.fromkeys(match.rstrip(".,:;") for match in pieces[1::2]):
        if _squeeze(code) not in squeezed:
            lacking[code] = None
    prose = " ".join(pieces[::2])
    lacking |= dict.fromkeys(each for each in dict.fromkeys(NUMBER.findall(prose)) if _number(each) not in numbers)
    lacking |= dict.fromkeys(
        word
        for word in dict.fromkeys(_number_words(prose))
        if (value := NUMBER_WORDS.get(word.lower())) and value not in numbers
    )
    lacking |= dict.fromkeys(name for name in dict.fromkeys(_names(prose)) if not _words(name) <= words)
    return list(lacking)


def supported_share(answer: str, passages: Sequence[str]) -> float:
    """The share of an answer's sentences most of whose content words stand in one passage; 1 without a sentence."""
    stems = [frozenset(content_words(passage)) for passage in passages]
    units = [set(content_words(CITATION.sub(" ", unit))) for unit in sentences(answer)]
    checked = [unit for unit in units if unit]
    held = [any(len(unit & passage) >= SUPPORT * len(unit) for passage in stems) for unit in checked]
    return sum(held) / len(checked) if checked else 1.0


def _plain(text: str) -> str:
    return text.translate(TYPOGRAPHY)


def _squeeze(text: str) -> str:
    """Without blanks and Markdown marks: how a command is broken over lines says nothing."""
    return re.sub(r"[\s`*\\]+", "", text).lower()


def _parts(passage: str) -> frozenset[str]:
    words = passage.split()
    return frozenset(map(_squeeze, words)) | frozenset(_squeeze(word.strip(".,;:()\"'")) for word in words)


def _stands(span: str, squeezed: str, parts: frozenset[str]) -> bool:
    """Whether a command or code stands in a passage: in whole, or each of its words."""
    return _squeeze(span) in squeezed or all(_squeeze(part) in parts for part in span.split())


def _words(text: str) -> frozenset[str]:
    words = re.findall(r"[^\W_]+(?:['][^\W_]+)?", text.lower())
    return frozenset(word.removesuffix("'s") for word in words)


def _number(text: str) -> str:
    if text.isdecimal() and text[0] != "0" and len(text) <= LONGEST:
        return text
    text = text.replace(",", "").lstrip("+")
    if len(text) > LONGEST:  # nobody's number
        return text
    return re.sub(
        r"^(-?)0+(?=\d)", r"\1", re.sub(r"(\.\d*?)0+$", r"\1", text).removesuffix(".") if text.count(".") == 1 else text
    )


def _numbers(text: str) -> frozenset[str]:
    digits = {_number(each) for each in re.findall(r"[-+]?\d[\d,]*(?:\.\d+)*", text)}
    spelled = {NUMBER_WORDS[word] for word in _words(text) if word in NUMBER_WORDS}
    return frozenset(digits | {each.lstrip("-") for each in digits} | spelled)


def _number_words(text: str) -> list[str]:
    """The words of a text, where a number in words can be among them."""
    lowered = text.lower()
    return re.findall(r"\w+", text) if any(word in lowered for word in NUMBER_WORDS) else []


def _names(text: str) -> Iterator[str]:
    """Capitalised words; the first word of a sentence counts only when more than its first letter is a capital."""
    for line in filter(CAPITAL.search, text.splitlines()):
        for sentence in SENTENCE_END.split(line):
            first = True
            for match in re.finditer(r"[\w'-]+", sentence):
                word = match[0].strip("-'")
                is_name = NAME.fullmatch(word) is not None and word not in NO_NAMES
                if is_name and (not first or any(letter.isupper() for letter in word[1:])):
                    yield word
                first = False
