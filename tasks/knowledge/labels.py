"""Labels of documents and API keys: a key sees the passages without labels, and those that share one of its labels."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import Field

LABELS_HEADER = "x-driftline-labels"  # from the gateway to a release: the labels of the request's key
LABEL = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
EVERY = "*"  # the header's value for an owner of the installation, who sees all passages

Label: TypeAlias = Annotated[str, Field(pattern=LABEL)]
Labels: TypeAlias = frozenset[str] | None  # None: no restriction


def is_label(text: str) -> bool:
    return re.fullmatch(LABEL, text) is not None


def format_labels(labels: Labels) -> str:
    """The header's value; equal labels give an equal text."""
    return EVERY if labels is None else ",".join(sorted(labels))


def parse_labels(header: str | None) -> Labels:
    """The labels of a header; without one only passages without labels are visible."""
    return None if header == EVERY else frozenset(filter(is_label, (header or "").split(",")))
