"""Finds secrets in texts: keys, tokens, passwords.

The patterns follow the documentation of the issuers, the plugins of detect-secrets (Yelp, Apache-2.0) and the rules of
gitleaks (MIT). Each of them reads a character a constant number of times.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

# A literal that must occur, and the pattern; the comment names the issuer.
_FORMS: tuple[tuple[str, str], ...] = (
    ("sk-", r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9_-]{16,}"),  # OpenAI, Anthropic and similar ones
    ("sk-", r"sk-(?:proj-|ant-|svcacct-|admin-)?[A-Za-z0-9_]{32,}"),
    ("dl-", r"(?<![A-Za-z0-9])dl-[A-Za-z0-9_-]{20,}"),  # Driftline
    ("dl-", r"dl-[A-Za-z0-9_-]{43}"),
    ("A", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),  # Amazon: id of a key
    ("gh", r"gh[pousr]_[A-Za-z0-9]{36,255}"),  # GitHub
    ("github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}"),
    ("glpat-", r"glpat-[A-Za-z0-9_-]{20,}"),  # GitLab
    ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),  # Slack
    ("xapp-", r"xapp-[A-Za-z0-9-]{10,}"),
    ("hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,}"),
    ("AIza", r"AIza[A-Za-z0-9_-]{35}"),  # Google
    ("ya29.", r"ya29\.[A-Za-z0-9_-]{20,}"),
    ("k_", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),  # Stripe
    ("SG.", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"),  # SendGrid
    ("hf_", r"hf_[A-Za-z0-9]{34}"),  # Hugging Face
    ("npm_", r"npm_[A-Za-z0-9]{36}"),
    ("pypi-", r"pypi-[A-Za-z0-9_-]{50,}"),
    ("dop_v1_", r"dop_v1_[a-f0-9]{64}"),  # DigitalOcean
    ("hvs.", r"hvs\.[A-Za-z0-9_-]{24,}"),  # HashiCorp Vault
)
_TOKENS = tuple((literal, re.compile(form)) for literal, form in _FORMS)
_DOTTED = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)++")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+)*")
_BLOCK = re.compile(r"-{2,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{2,5}")
_BLOCK_END = re.compile(r"-{2,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{2,5}")
_HEADER = re.compile(r"(?i)\b(bearer|authorization\W{1,6}(?:basic|token|bearer|digest))\s{1,8}([A-Za-z0-9._~+/=-]{8,})")
_IN_ADDRESS = re.compile(r"://[^\s/:@\"'<>]{0,64}:([^\s/@\"'<>]{1,128})@")
_AMAZON = re.compile(r"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
NEAR = 64  # characters between a name and a value
_STRONG = r"pass(?:word|wd|phrase|code|wort)?|pwd|kennwort|contraseña|secret|token|api[_ -]?key|access[_ -]?key"
_STRONG += r"|private[_ -]?key|secret[_ -]?key|auth[_ -]?key|account[_ -]?key|encryption[_ -]?key|credentials?"
_NAMES = (
    "pass",
    "pwd",
    "kennwort",
    "contraseña",
    "secret",
    "token",
    "key",
    "credential",
)  # each of the words above contains one
STRONG_NAME = re.compile(rf"(?:{_STRONG})[A-Za-z0-9_-]{{0,30}}\Z", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?:({_STRONG})|key)[A-Za-z0-9_-]{{0,30}}[\"'`]?\]?(?:\s{{0,4}}(?::=|=>|={{1,3}}|:)\s{{0,4}}|\s{{1,4}}(?:is|ist)\s{{1,4}})"
    r"[\"'`]?([^\s\"'`,;<>&(){}\[\]\\]{6,})",
    re.IGNORECASE,
)


def find_secrets(text: str) -> list[tuple[int, int]]:
    """Spans of keys, tokens, named passwords and private keys, in order; none overlap."""
    spans: list[tuple[int, int]] = [*_blocks(text)]
    for literal, form in _TOKENS:
        if literal in text:
            spans += (match.span() for match in form.finditer(text))
    if "eyJ" in text:
        spans += _web_tokens(text)
    if "://" in text:
        spans += (match.span(1) for match in _IN_ADDRESS.finditer(text))
    lowered = text.lower()
    if "bearer" in lowered or "authorization" in lowered:
        spans += (match.span(2) for match in _HEADER.finditer(text) if _is_credential(match[1], match[2]))
    if "aws" in lowered or "amazon" in lowered or "AKIA" in text:
        spans += (m.span() for m in _AMAZON.finditer(text) if _is_mixed(m[0]) and _is_of_amazon(lowered, *m.span()))
    if any(word in lowered for word in _NAMES):
        spans += (m.span(2) for m in _ASSIGNED.finditer(text) if is_secret(m[2], is_strong=m[1] is not None))
    return _merged(spans)


def is_secret(value: str, *, is_strong: bool) -> bool:
    """Whether a value looks like a secret; after a strong name such as `password`, it may be simpler."""
    letters, digits = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    if is_strong:
        signs = any(not c.isalnum() for c in value.strip(".!?-_:"))
        return len(value) >= 6 and letters and (digits or (signs and len(value) >= 8))
    return len(value) >= 20 and _is_mixed(value)


def _is_mixed(value: str) -> bool:
    """Whether it looks random: letters of both cases and digits, or a long hexadecimal number."""
    if re.fullmatch(r"[0-9a-f]{32,}|[0-9A-F]{32,}", value):
        return True
    classes = (str.islower, str.isupper, str.isdigit)
    return all(any(map(each, value)) for each in classes) and _entropy(value) >= 3.5


def _entropy(value: str) -> float:
    """Shannon entropy in bits per character."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)


def _is_of_amazon(lowered: str, start: int, end: int) -> bool:
    """Whether Amazon is named nearby: far away, it says nothing of this value."""
    around = lowered[max(start - NEAR, 0) : end + NEAR]
    return "aws" in around or "amazon" in around or "akia" in around


def _is_credential(scheme: str, value: str) -> bool:
    return scheme.lower() != "bearer" or (any(map(str.isdigit, value)) and len(value) >= 12)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Private keys with their first and last lines; one without a last line extends to the end of the text."""
    at = 0
    while "PRIVATE KEY" in text and (begin := _BLOCK.search(text, at)):
        end = _BLOCK_END.search(text, begin.end())
        at = end.end() if end else len(text)
        yield begin.start(), at


def _web_tokens(text: str) -> Iterator[tuple[int, int]]:
    """JSON web tokens; each dotted word is read once."""
    for word in _DOTTED.finditer(text):
        begin = word[0].find("eyJ")
        if begin >= 0 and (match := _JWT.match(word[0], begin)):
            yield word.start() + match.start(), word.start() + match.end()


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
