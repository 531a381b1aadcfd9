"""The categories of text columns that a model knows from its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.train.tabular.ensemble import pipelines_of
from tasks.train.tabular.scoring import Model

Categories = Mapping[str, frozenset[str]]


def known_categories(model: Model) -> dict[str, frozenset[str]]:
    """By column, for the text columns that are encoded by category; free text and numbers have none."""
    texts = {column.name for column in model.columns if column.kind == "text"}
    known: dict[str, frozenset[str]] = {}
    for _, step, names in pipelines_of(model.pipeline)[0][0].transformers_:
        parts = [part for _, part in step.steps] if hasattr(step, "steps") else [step]
        fitted = next((part.categories_ for part in parts if hasattr(part, "categories_")), ())
        if len(fitted) == len(names):  # an imputer before it may have added columns
            pairs = zip(names, fitted, strict=True)
            known |= {name: frozenset(c for c in each if isinstance(c, str)) for name, each in pairs if name in texts}
    return known


def unseen_categories(known: Categories, values: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """The distinct words, sorted, of each column that its training did not have; a missing value is none."""
    unseen = {}
    for column, categories in known.items():
        words = {value.strip() for value in values[column] if isinstance(value, str)}  # as scoring trims them
        if others := words - categories - {""}:
            unseen[column] = sorted(others)
    return unseen
