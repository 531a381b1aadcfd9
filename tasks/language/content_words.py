"""The content words of an English text, reduced to stems, and its sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_COMMON = (
    "a about after again all also am an and any are as at be because been before being between both but by can could "
    "did do does doing done each else few for from get gets got had has have having he her here him his how i if in "
    "into is it its just let like may me might more most much must my need no nor not of off on one only onto or other "
    "our out over own please shall she should so some such than that the their them then there these they this those "
    "through to too under until up us use used uses using very want was way we were what when where whether which "
    "while who whom whose why will with within without would yes yet you your"
)
STOPWORDS = frozenset(_COMMON.split())
WORD = re.compile(r"[a-z0-9]+(?:[._/'-][a-z0-9]+)*")
ENDINGS = ("ations", "ation", "ings", "ing", "edly", "ied", "ies", "ed", "es", "ly", "s", "e")
SHORTEST_STEM = 3
CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)]|\||#{1,6}\s)")  # a line that begins a list item, a table row or a heading
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z`*\"'(\[])")


def content_words(text: str) -> list[str]:
    """The stems of a text's words without stop words, in order."""
    words = WORD.findall(text.lower().replace("\u2019", "'"))
    parts = [
        part for word in words for part in (word, *(re.split(r"[._/-]", word) if re.search(r"[._/-]", word) else ()))
    ]
    return [stem(word.removesuffix("'s")) for word in parts if word and word not in STOPWORDS]


def compounds(words: Sequence[str]) -> list[str]:
    """A word and its next as one, unless it is a stop word: who asks how to `roll back` means `rollback`, too."""
    return [one + other for one, other in pairwise(words) if one not in STOPWORDS and len(other) > 1]


def stem(word: str) -> str:
    """A word without its commonest endings: `rolled`, `rolling` and `rolls` become `roll`."""
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM and word.isalpha():
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > SHORTEST_STEM and word[-1] == word[-2] else word


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text; a code block, a list item and a table row count as one each."""
    units: list[str] = []
    at = 0
    for block in CODE_BLOCK.finditer(text):
        units += _of_prose(text[at : block.start()])
        units.append(block[0].strip())
        at = block.end()
    return [unit for unit in (*units, *_of_prose(text[at:])) if unit]


def _of_prose(text: str) -> list[str]:
    paragraphs: list[list[str]] = [[]]
    for line in text.splitlines():
        if not line.strip():
            paragraphs.append([])
        elif ITEM.match(line):
            paragraphs.append([line.strip()])
        else:
            paragraphs[-1].append(line.strip())
    joined = [" ".join(lines) for lines in paragraphs if lines]
    return [sentence.strip() for paragraph in joined for sentence in SENTENCE_END.split(paragraph)]
