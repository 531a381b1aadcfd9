"""Finds telephone numbers: digit groups with a plus or parentheses, or in a usual form."""

from __future__ import annotations

import re
from itertools import pairwise

from tasks.guard.payment import Group, digit_runs, is_hex, run_pattern

MIN_DIGITS, MOST = 9, 15  # digits; ITU-T E.164 allows 15
_GAP = re.compile(r"[\s.\-_/·()\\]+")
_RUNS = run_pattern(r"[\s.\-_/·()+,:;|*~\\]")
# Times, network addresses, ids and amounts, which look like telephone numbers. After a plus or a zero, only the first
# four patterns apply.
_OTHER_NUMBERS = re.compile(
    r"""
      (?<![0-9])[0-9]{4}([-./])[0-9]{1,2}\1[0-9]{1,2}(?![0-9])
    | (?<![0-9])[0-9]{1,2}([-./])[0-9]{1,2}\2(?:19|20)[0-9]{2}(?![0-9])
    | (?<![0-9:])[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:[+-][0-9]{2}:?[0-9]{2})?(?![0-9:])
    | (?<![0-9a-fA-F])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![0-9a-fA-F])
    | (?<![0-9.])(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})(?:\.(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})){3}(?![0-9.])
    | (?<![0-9.,/+])(?<![0-9A-Za-z)]-)(?:0|[1-9][0-9]{0,30})[.,][0-9]{1,40}(?![0-9]|[.,/-][0-9])
    | (?<![0-9.,])[1-9][0-9]{0,2}(?:([.,])[0-9]{3})(?:\3[0-9]{3}){1,9}(?:[.,][0-9]{1,4})?(?![0-9])
    """,
    re.VERBOSE,
)
_IN_OTHER_NUMBERS = re.compile(r"[-./:,]")  # each has one of these
_IN_PARENTHESES = re.compile(r"\([0-9]{1,5}\)")
_PLAIN_GAPS = frozenset(" .-/_·")
_NORTH_AMERICAN = (3, 3, 4)


def find_phones(text: str) -> list[tuple[int, int]]:
    """Spans of telephone numbers. Digits without separators only count after a plus or a zero."""
    runs = list(digit_runs(text, _RUNS, MIN_DIGITS))
    if runs and _IN_OTHER_NUMBERS.search(text) and _OTHER_NUMBERS.search(text):
        text = _OTHER_NUMBERS.sub(lambda match: "\0" * len(match[0]), text)
        runs = list(digit_runs(text, _RUNS, MIN_DIGITS))
    return [span for run in runs for span in _phones_of(text, run)]


def _phones_of(text: str, run: list[Group]) -> list[tuple[int, int]]:
    spans, first, whole = [], 0, True
    while first < len(run):
        start, end = run[first]
        if first and end - start != _NORTH_AMERICAN[0] and text[start] != "0":
            before = text[max(start - 3, 0) : start]
            if "+" not in before and "(" not in before:
                first, whole = first + 1, False  # nearly all groups of a long run
                continue
        last = _last_of(text, run, first, whole)
        if last is None:
            first += 1
        else:
            spans.append((_begin(text, run[first][0]), run[last][1]))
            first = last + 1
        whole = False  # the rest of a longer run follows
    return spans


def _last_of(text: str, run: list[Group], first: int, whole: bool) -> int | None:
    """The last group of the telephone number that begins at the group `first`; None if none begins there."""
    start = run[first][0]
    begin = _begin(text, start)
    gap_before = text[run[first - 1][1] : start] if first else ""
    if "+" in text[begin:start] and (whole or gap_before != "+"):
        return _fitting(text, run, first)
    if text[start] == "0" and _starts_national(text, run, first, gap_before):
        return _fitting(text, run, first)
    if begin < start and text[begin] == "(":
        return _fitting(text, run, first)
    return _unmarked(text, run, first, gap_before)


def _begin(text: str, start: int) -> int:
    """The start of a plus or a parenthesis before the first group."""
    before = text[max(start - 3, 0) : start]
    rest = before.removesuffix("(").removesuffix(" ").removesuffix("+")
    begin = start - len(before[len(rest) :].lstrip())
    if "+" not in text[begin:start] and not _IN_PARENTHESES.match(text, begin, begin + 7):
        return start
    return begin


def _fitting(text: str, run: list[Group], first: int) -> int | None:
    """The last group within the maximum number of digits."""
    digits, last = 0, None
    gaps: set[str] = set()
    for index in range(first, len(run)):
        digits += run[index][1] - run[index][0]
        gap = text[run[index - 1][1] : run[index][0]] if index > first else ""
        is_another = last is not None and gap not in gaps | _PLAIN_GAPS
        if digits > MOST or "+" in gap[-2:] or is_another:
            break
        gaps.add(gap)
        if digits >= MIN_DIGITS - 1:
            last = index
    return last


def _starts_national(text: str, run: list[Group], first: int, gap_before: str) -> bool:
    start, end = run[first]
    if end - start < 2:
        return False
    if len(run) == first + 1 or end - start >= MIN_DIGITS:  # no separator inside
        glued = start > 0 and text[start - 1].isalpha()
        tail = re.match(r"[A-Za-z]{1,3}(?![A-Za-z0-9])|(?![A-Za-z0-9])", text[end : end + 5])
        return end - start >= MIN_DIGITS and not glued and bool(tail) and not is_hex(text, start, end)
    gap_behind = text[end : run[first + 1][0]]
    if first == 0:
        return _GAP.fullmatch(gap_behind) is not None
    return gap_before != gap_behind and text[start + 1] != "0" and _GAP.fullmatch(gap_behind) is not None


def _unmarked(text: str, run: list[Group], first: int, gap_before: str) -> int | None:
    """Groups with separators; inside a longer run, only the North American form."""
    ahead = run[first : first + 6]
    sizes = tuple(end - start for start, end in ahead)
    gaps = [text[one[1] : other[0]] for one, other in pairwise(ahead)]
    if sizes[:3] == _NORTH_AMERICAN and _is_standalone(text, run[first]) and _are_alone(gap_before, gaps):
        return first + 2
    alone = first == 0 and 2 <= len(run) <= 5 and min(sizes) >= 2 and MIN_DIGITS <= sum(sizes) <= MOST
    plain = _PLAIN_GAPS.issuperset(gaps)
    if alone and plain and _is_standalone(text, run[0]) and not text[run[-1][1] : run[-1][1] + 1].isalpha():
        return len(run) - 1
    return None


def _are_alone(gap_before: str, gaps: list[str]) -> bool:
    """Whether three groups have other separators than the groups around them."""
    within, behind = gaps[:2], gaps[2:3]
    return _PLAIN_GAPS.issuperset(within) and gap_before not in within and behind != within[1:]


def _is_standalone(text: str, group: Group) -> bool:
    """Whether no letter and no other number precedes directly."""
    before = text[max(group[0] - 2, 0) : group[0]]
    if not before or before[-1] == "_":
        return True
    if before[-1].isalnum():
        return False
    return not (before[-1] in ".,:/-+" and before[:1].isalnum() and (before[0].isdigit() or before[-1] == "-"))
