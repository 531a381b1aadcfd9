"""A text that is checked, in the forms that checks read: as written, normalised, folded, decoded."""

# ruff: noqa: RUF001 (letters that look alike are its matter)

from __future__ import annotations

import codecs
import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import islice

from tasks.guard.normalize import Normalized
from tasks.guard.redaction import Span, find_spans
from tasks.guard.results import Context

MAX_ENCODED = 64  # pieces that are decoded
# Letters that look like Latin ones (Unicode's confusables.txt): Cyrillic, Greek, Armenian, and others in use.
_PAIRS = """
аa вb сc ԁd еe һh іi јj кk ӏl мm нh оo рp ѕs тt уy хx ԛq ԝw гr ѵv АA ВB СC ЕE НH ІI ЈJ КK МM ОO РP ЅS ТT УY ХX αa βb
γy δd εe ηn ιi κk νv οo ρp τt υu χx ωw ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX հh ոn օo սu ɑa ɡg ɩi ıi łl øo đd ßs ſs
"""
LOOKALIKES = {ord(pair[0]): pair[1] for pair in _PAIRS.split()}
_LEET = str.maketrans("0134578@$!|+", "oieastbasilt")
# At least three single letters with one and the same sign between them; more space ends a word.
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?P<sign> ?[.\-_*·,] ?| )(?![ ])[^\W_](?:(?P=sign)[^\W_](?![^\W_]))+")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{2}[ ]?){10,}(?![0-9A-Za-z])")
_SPACES = re.compile(r"\s+")
_FREQUENT = """
the of and to a in is it you your that all me my i not with for this as are be do from on have or how what now
der die das und ist nicht ein eine du zu mit von le la les de des et un une est que vous el los las y en por
no tu il di che non per o os e um uma nao
"""
_COMMON = frozenset(_FREQUENT.split())  # English, German, French, Spanish, Italian, Portuguese


class Subject:
    """A text with the forms that several checks share; each form is computed once, when a check reads it."""

    def __init__(self, text: str, context: Context | None = None) -> None:
        self.text, self.context = text, context or Context()

    @cached_property
    def normalized(self) -> Normalized:
        return Normalized(self.text)

    @cached_property
    def folded(self) -> str:
        """Normalised, in lower case, with Latin letters for those that look alike; positions are of `normalized`."""
        plain = self.normalized.text
        return plain.lower() if plain.isascii() else "".join(map(_fold, plain))

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Personal data and secrets."""
        return tuple(find_spans(self.text))

    @cached_property
    def secrets(self) -> tuple[Span, ...]:
        """Secrets alone, in a fraction of the time."""
        return tuple(find_spans(self.text, ("secret",)))

    @cached_property
    def readings(self) -> tuple[str, ...]:
        """The folded text in one line, and further readings: spaced letters joined, digits for letters, decoded."""
        plain = _SPACES.sub(" ", self.folded)
        joined = self.joined
        readings = {plain: None, joined: None, joined.translate(_LEET): None}
        for turned in (codecs.decode(joined, "rot13"), plain[::-1]):
            if _common_words(turned) > _common_words(plain):
                readings[turned] = None
        for piece in self.decoded:
            readings[_SPACES.sub(" ", "".join(map(_fold, Normalized(piece).text)))] = None
        return tuple(readings)

    @cached_property
    def joined(self) -> str:
        """The folded text in one line, with spaced letters joined."""
        return _SPACES.sub(" ", _SPACED.sub(_join, self.folded))

    @cached_property
    def decoded(self) -> tuple[str, ...]:
        """Texts that stand in it as base64 or hexadecimal digits."""
        return tuple(_decoded(self.text))


def _common_words(text: str) -> int:
    """How many of a language's most frequent words a text has: a text in another order or alphabet has few."""
    return sum(word in _COMMON for word in text.split())


@lru_cache(4096)
def _fold(character: str) -> str:
    """One character for one, so that positions stay."""
    if character.isascii():
        return character.lower()
    plain = character.translate(LOOKALIKES)
    if not plain.isascii():
        plain = unicodedata.normalize("NFD", character)[0].translate(LOOKALIKES)
    lowered = plain.lower()
    return lowered if len(lowered) == 1 else plain


def _join(match: re.Match[str]) -> str:
    return re.sub(r"[^\w]|_", "", match[0])


def encoded_pieces(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and readable text of base64 and hexadecimal pieces."""
    for match in islice(_BASE64.finditer(text), MAX_ENCODED):
        piece = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        try:
            raw = b64decode(piece + "=" * (-len(piece) % 4))
        except ValueError:
            continue
        for plain in (*_readable(raw), *_readable_digits(piece)):
            yield *match.span(), plain


def _decoded(text: str) -> Iterator[str]:
    """What encoded pieces say, spaced hexadecimal digits among them."""
    for _, _, plain in encoded_pieces(text):
        yield plain
    for match in islice(_HEX.finditer(text), MAX_ENCODED):
        yield from _readable_digits(match[0].replace(" ", ""))


def _readable_digits(digits: str) -> Iterator[str]:
    try:
        yield from _readable(bytes.fromhex(digits))
    except ValueError:
        return


def _readable(raw: bytes) -> Iterator[str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    letters = sum(each.isalpha() or each.isspace() for each in text)
    if len(text) >= 8 and letters >= 0.8 * len(text):
        yield text
