"""Recognizes columns with personal data, by their names and by what stands in them."""

from __future__ import annotations

import re

from tasks.data.profile.results import ColumnProfile
from tasks.guard.redaction import find_spans

_PEOPLE = re.compile(r"((user|customer|passenger|patient|employee|person|client)[ _-]?)?names?", re.I)
_OWN_NAMES = re.compile(r"(first|last|sur|family|fore|given|middle|full|maiden)[ _-]?name|surname", re.I)
_OTHERS = {
    "e-mail addresses": re.compile(r"e[ _-]?mail([ _-]?address)?", re.I),
    "telephone numbers": re.compile(r"(tele)?phone([ _-]?(number|no))?|mobile|fax", re.I),
    "postal addresses": re.compile(r"(street|home|postal)?[ _-]?address|street", re.I),
    "social security numbers": re.compile(
        r"ssn|social[ _-]?security([ _-]?(number|no))?|passport([ _-]?(number|no))?", re.I
    ),
    "IP addresses": re.compile(r"ip([ _-]?addr(ess)?)?", re.I),
}
_KINDS = {
    "email": "e-mail addresses",
    "phone": "telephone numbers",
    "card": "card numbers",
    "iban": "IBANs",
    "secret": "secrets",
}
_CAPITALIZED = re.compile(r"[^\W\d_][\w'.-]*([ ,]+[^\W\d_][\w'.() -]*){0,6}")


def find_personal(column: ColumnProfile) -> tuple[str, ...]:
    """The kinds of personal data in a column: people's names, e-mail addresses, telephone numbers and so on."""
    if column.type != "text" or column.reading:
        return ()
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.name).strip()  # firstName
    kinds = [kind for kind, pattern in _OTHERS.items() if pattern.fullmatch(name)]
    many = column.distinct > 30
    if _OWN_NAMES.fullmatch(name) or (many and _PEOPLE.fullmatch(name) and _look_like_names(column.examples)):
        kinds.append("people's names")
    found = [_KINDS[kind] for text in column.examples for kind in {span.kind for span in find_spans(text)}]
    kinds += [kind for kind in dict.fromkeys(found) if 2 * found.count(kind) >= len(column.examples)]
    return tuple(dict.fromkeys(kinds))


def _look_like_names(examples: tuple[str, ...]) -> bool:
    fitting = [text for text in examples if _CAPITALIZED.fullmatch(text.strip()) and text.strip()[:1].isupper()]
    return len(fitting) >= 0.7 * len(examples)
