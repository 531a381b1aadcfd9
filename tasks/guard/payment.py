"""Finds card numbers and IBANs by form, issuer or country, and check digits."""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Iterator
from itertools import accumulate, pairwise

Group = tuple[int, int]  # start and end of a group of digits

SEPARATOR = r"[\s.\-_/·:,;|\\*~+]"
SHORTEST, LONGEST = 12, 19  # digits of a card number
LEAST_GROUP = 3  # digits of the first group of a card number within a longer run
GAP = 6  # maximum number of separators between two groups
_GROUP = re.compile(r"[0-9]+")
_UUID = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![0-9a-fA-F])")
_HEX = re.compile(r"[0-9a-fA-F]+")
_ALNUM = string.ascii_letters + string.digits
_LAYOUTS = {(4, 6, 5), (4, 6, 4), (4, 4, 5), (6, 13), (6, 10), (4, 4, 8), (8, 4, 4)}
# First digits and lengths by issuer (ISO/IEC 7812; Wikipedia, Payment card number).
_ISSUERS = (
    (r"4", (13, 16, 19)),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),
    (r"3[47]", (15,)),
    (r"30[0-5]|309|36|3[89]", tuple(range(14, 20))),
    (r"6011|64[4-9]|65|62|8[12]|60", tuple(range(16, 20))),
    (r"35(?:2[89]|[3-8])|220[0-4]", tuple(range(16, 20))),
    (r"50|5[6-9]|6", tuple(range(12, 20))),
    (r"1", (15,)),
    (r"[2-9]", (16,)),  # other issuers
)
# The national part by country: n digits, a letters, c both (ISO 13616, SWIFT's IBAN registry). After the blank line,
# countries that use the form without standing in the registry.
_COUNTRIES = """
AD8n12c AE19n AL8n16c AT16n AZ4a20c BA16n BE12n BG4a6n8c BH4a14c BI23n BR23n1a1c BY4c4n16c CH5n12c CR18n CY8n16c CZ20n
DE18n DJ23n DK14n DO4c20n EE16n EG25n ES20n FI14n FK2a12n FO14n FR10n11c2n GB4a14n GE2a16n GI4a15c GL14n GR7n16c
GT24c HN4a20n HR17n HU24n IE4a14n IL19n IQ4a15n IS22n IT1a10n12c JO4a4n18c KW4a22c KZ3n13c LB4n20c LC4a24c LI5n12c
LT16n LU3n13c LV4a13c LY21n MC10n11c2n MD20c ME18n MK3n10c2n MN16n MR23n MT4a5n18c MU4a19n3a NI4a20n NL4a10n NO11n
OM3n16c PK4a16c PL24n PS4a21c PT21n QA4a21c RO4a16c RS18n RU14n15c SA2n18c SC4a20n3a SD14n SE20n SI15n SK20n
SM1a10n12c SO19n ST21n SV4a20n TL19n TN20n TR6n16c UA6n19c VA18n VG4a16n XK16n YE4a4n18c

AO21n BF24c BJ24c CF23n CG23n CI24c CM23n CV21n DZ22n GA23n GF23c GP23c GQ23n GW21c IR22n KM23n MA24n MG23n ML24c
MQ23c MZ21n NC23c NE24c PF23c PM23c RE23c SN24c TD23n TF23c TG24c WF23c YT23c
"""
_NATIONAL = {part[:2]: part[2:] for part in _COUNTRIES.split()}
_CLASSES = {"n": "[0-9]", "a": "[A-Za-z]", "c": "[A-Za-z0-9]"}
_IBAN_START = re.compile(rf"([A-Za-z])(?={SEPARATOR}{{0,{GAP}}}+([A-Za-z]){SEPARATOR}{{0,{GAP}}}+[0-9])")


def find_ibans(text: str) -> list[tuple[int, int]]:
    """Spans of IBANs, whatever precedes or follows: the IBANs of a country have one length."""
    spans, at = [], 0
    while start := _IBAN_START.search(text, at):
        country = (start[1] + start[2]).upper()
        match = _iban(country).match(text, start.start()) if country in _NATIONAL else None
        at = start.start() + 1
        if match and _is_iban(match[0]) and not (match[0].isalnum() and is_hex(text, *match.span())):
            spans.append(match.span())
            at = match.end()
    return spans


@functools.cache
def _iban(country: str) -> re.Pattern[str]:
    parts = re.findall(r"(\d+)([nac])", "2n" + _NATIONAL[country])
    classes = [_CLASSES[kind] for count, kind in parts for _ in range(int(count))]
    return re.compile("".join(f"{SEPARATOR}{{0,{GAP}}}+{each}" for each in ("[A-Za-z]", "[A-Za-z]", *classes)))


def _is_iban(written: str) -> bool:
    """ISO 13616: with the first four characters moved to the end and letters as numbers, it is 1 modulo 97."""
    characters = "".join(filter(str.isalnum, written))
    return int("".join(str(int(c, 36)) for c in characters[4:] + characters[:4])) % 97 == 1


def run_pattern(separator: str) -> re.Pattern[str]:
    """Groups of digits with up to GAP separators, of a class of characters, between them."""
    return re.compile(rf"[0-9]++(?:{separator}{{1,{GAP}}}+[0-9]++)*+")


def digit_runs(text: str, pattern: re.Pattern[str], least: int) -> Iterator[list[Group]]:
    """Runs of digit groups with separators between, of at least so many digits."""
    for match in pattern.finditer(text):
        start, end = match.span()
        if end - start >= least:
            run = [group.span() for group in _GROUP.finditer(text, start, end)]
            if sum(end - start for start, end in run) >= least:
                yield run


_RUNS = run_pattern(SEPARATOR)
_VALUES = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def find_cards(text: str) -> list[tuple[int, int]]:
    """Spans of card numbers: 12 to 19 digits with an issuer's prefix and a valid check digit."""
    in_uuids = {start for match in _UUID.finditer(text) for start in range(*match.span())}
    spans: list[tuple[int, int]] = []
    for run in digit_runs(text, _RUNS, SHORTEST):
        if run[0][0] not in in_uuids:
            spans += _Run(text, run).cards()
    return spans


class _Run:
    """A run of digit groups, in which any adjacent groups may be a card number."""

    def __init__(self, text: str, run: list[Group]) -> None:
        self._text, self._run = text, run
        self._digits = "".join(text[start:end] for start, end in run)
        self._offsets = [0, *accumulate(end - start for start, end in run)]
        plain, doubled = (self._digits.encode().translate(table) for table in (_VALUES, _DOUBLED))
        self._sums: list[list[int]] = []  # Luhn's, of ISO/IEC 7812: a check digit costs the same for any length
        for parity in (0, 1):
            mixed = bytearray(plain)
            mixed[parity::2] = doubled[parity::2]
            self._sums.append([0, *accumulate(mixed)])

    def cards(self) -> list[tuple[int, int]]:
        """Regularly grouped numbers first, irregular ones among the rest; overlapping numbers become one span."""
        taken: set[int] = set()
        possible = self._possible()
        for rule in (self._is_even, self._is_regular, self._is_at_an_end):
            free = frozenset(taken)
            for first, lasts in possible:
                last = max((each for each in lasts if rule(first, each)), default=None)
                if last is not None and free.isdisjoint(range(first, last + 1)):
                    taken.update(range(first, last + 1))
        return self._spans(sorted(taken))

    def _possible(self) -> list[tuple[int, list[int]]]:
        """First and last groups with a card's length and check digit; nearly all groups of a long run have none."""
        group_before = {offset: last for last, offset in enumerate(self._offsets[1:])}
        digits, sums, possible = self._digits, self._sums, []
        near_end = len(digits) - LONGEST
        for first, begin in enumerate(self._offsets[:-1]):
            if first and begin < near_end and self._offsets[first + 1] - begin < LEAST_GROUP:
                continue  # no rule takes it: neither regular nor at an end
            lasts = []
            for length in _lengths(digits[begin : begin + 4]):
                end = begin + length
                if end in group_before and (sums[end % 2][end] - sums[end % 2][begin]) % 10 == 0:
                    lasts.append(group_before[end])
            if lasts:
                possible.append((first, lasts))
        return possible

    def _spans(self, taken: list[int]) -> list[tuple[int, int]]:
        """Adjacent groups as one span."""
        spans: list[tuple[int, int]] = []
        for place, index in enumerate(taken):
            start, end = self._run[index]
            if place and taken[place - 1] == index - 1:
                start = spans.pop()[0]
            spans.append((start, end))
        return spans

    def _is_even(self, first: int, last: int) -> bool:
        """Whether the groups have a card's sizes and one common separator."""
        return self._is_regular(first, last) and len(self._gaps(first, last)) <= 1

    def _is_regular(self, first: int, last: int) -> bool:
        """Whether the groups have a card's sizes, and are not part of a fraction or a digest."""
        sizes = [end - start for start, end in self._run[first : last + 1]]
        if len(sizes) == 1:
            return not self._is_fraction(first) and not is_hex(self._text, *self._run[first])
        if sizes[0] < LEAST_GROUP and len(sizes) < len(self._run):  # adjacent telephone numbers look the same
            return False
        return tuple(sizes) in _LAYOUTS or (len(set(sizes[:-1])) == 1 and sizes[-1] <= sizes[0])

    def _is_at_an_end(self, first: int, last: int) -> bool:
        """Whether groups of any sizes begin or end the run, with one common separator or spaces and dashes."""
        if first == last or (first > 0 and last < len(self._run) - 1):
            return False
        gaps = self._gaps(first, last)
        return len(gaps) == 1 or gaps <= {" ", "-"}

    def _gaps(self, first: int, last: int) -> set[str]:
        return {self._text[one[1] : other[0]] for one, other in pairwise(self._run[first : last + 1])}

    def _is_fraction(self, index: int) -> bool:
        """Whether it follows a decimal point."""
        if index == 0:
            return False
        start, end = self._run[index - 1]
        before = self._text[max(start - 1, 0) : start]
        return self._text[end : self._run[index][0]] == "." and before not in (".", "/", "-")


@functools.lru_cache(20_000)
def _lengths(first: str) -> frozenset[int]:
    """The possible lengths of card numbers with this prefix."""
    return frozenset(n for prefix, lengths in _ISSUERS if re.match(prefix, first) for n in lengths)


def is_hex(text: str, start: int, end: int) -> bool:
    """Whether digits are part of a digest or another hexadecimal id."""
    before, behind = text[max(start - 128, 0) : start], text[end : end + 128]
    left, right = before[len(before.rstrip(_ALNUM)) :], behind[: len(behind) - len(behind.lstrip(_ALNUM))]
    around = left + text[start:end] + right
    if len(around) == end - start or not _HEX.fullmatch(around):
        return False
    changes = sum(one.isdigit() != other.isdigit() for one, other in pairwise(around))
    return len(around) >= 16 and changes >= 3
