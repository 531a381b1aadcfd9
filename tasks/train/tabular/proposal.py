"""Propose the train section of a new case: a few sound models, compared on folds of its training rows.

The case keeps what was proposed: retraining does not choose again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.features.results import Column
from tasks.statistics.metric_catalog import worse_by
from tasks.train.config import Split, Target
from tasks.train.tabular.column_roles import ColumnRole, Role, column_roles
from tasks.train.tabular.comparison import Compared, Comparison, best
from tasks.train.tabular.default_models import DUMMY, Shape, default_models, vectorizer_parameters
from tasks.train.tabular.folds import comparison_folds, sample_rows
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import pandas as pd

METRICS = {"classification": ("auc", "log_loss"), "regression": ("r2", "mae")}  # and what decides between equals
COMPARED_CELLS = 400_000  # rows times columns times classes of the sample, so that a comparison takes 30 s
FEWEST_ROWS, MOST_ROWS = 1500, 20_000
OPTIONAL_ROLES: tuple[Role, ...] = ("text", "many_categories", "date")  # left out where they improve nothing
ENCODINGS: dict[Role, str] = {
    "category": "categories",
    "many_categories": "target encoding, fitted out of fold: more categories than the 255 that boosting takes",
    "date": "parts of the date",
    "text": "text by TF-IDF",
}


@dataclass(frozen=True)
class Proposal:
    """What a case's train section should say, and why."""

    train: dict[str, Any]  # in the case's own keys, without split
    compared: tuple[Compared, ...]
    chosen: str
    left_out: dict[str, str]  # columns that must be no features of the case, and why
    reasons: tuple[str, ...]  # one line each, for comments in case.yaml


def propose_model(
    examples: pd.DataFrame,
    target: Target,
    split: Split,
    *,
    columns: Sequence[Column],
    text: Collection[str] = (),
    metric: str | None = None,
) -> Proposal:
    """Compare a few sound models, and propose the best one. Equal rows give an equal proposal.

    `examples` has the columns that features.examples would give: example_id, event_timestamp (UTC), the target, and
    the features, as numbers or text. The hold-out of `split` is not looked at. `text` names columns of free text.

    Raises: DataError when the rows can't be split, or no model can be fitted.
    """
    training, _ = split_frame(examples[examples[target.column].notna()], split, target)
    found = column_roles(training, columns, text)
    few = sample_rows(training, target, MOST_ROWS // 2)
    terms = {column.name: count_terms(few, column) for column in found if column.role == "text"}
    left_out = {column.name: why for column in found if (why := _why_left_out(column, terms, len(training)))}
    roles = [column for column in found if column.name not in left_out]
    shape = shape_of(training, target, roles, terms)
    sample = sample_rows(training, target, _sample_size(training, target, roles))
    comparison = Comparison(comparison_folds(sample, split, target), target, split, *_metrics(target, metric))
    features = [column for column in columns if column.name not in left_out]
    compared = [comparison.measure(name, each, features) for name, each in default_models(shape).items()]
    if not any(each.by_fold for each in compared if each.name != DUMMY):
        problems = "; ".join(f"{each.name}: {each.problem}" for each in compared if each.problem)
        raise DataError("No model can be fitted on these rows.", found=problems or "no fold with two classes")
    chosen = best([each for each in compared if each.name != DUMMY])
    pruned = _leave_out_useless(comparison, shape, chosen, features)
    compared += pruned.compared
    left_out |= dict.fromkeys(pruned.left_out, "predictions are as good without")
    chosen = pruned.chosen
    reasons = [_describe_choice(chosen, compared, len(sample), len(training), split), *_describe_encoding(pruned.roles)]
    return Proposal({**chosen.train, "seed": 0}, tuple(compared), chosen.name, left_out, tuple(reasons))


@dataclass(frozen=True)
class _Pruned:
    chosen: Compared
    roles: list[ColumnRole]
    compared: list[Compared]
    left_out: list[str]


def _leave_out_useless(comparison: Comparison, shape: Shape, chosen: Compared, features: Sequence[Column]) -> _Pruned:
    """Compare the chosen model with itself without texts, without many categories, and without dates."""
    model, roles, features = chosen.name, list(shape.roles), list(features)
    compared: list[Compared] = []
    left_out: list[str] = []
    for role in OPTIONAL_ROLES:
        names = [column.name for column in roles if column.role == role]
        rest = [column for column in roles if column.role != role]
        if not names or not rest:
            continue
        section = default_models(replace(shape, roles=rest))[model]
        remaining = [column for column in features if column.name not in names]
        without = comparison.measure(f"{chosen.name} without {', '.join(names)}", section, remaining)
        compared.append(without)
        if without.by_fold and worse_by(without.metric, without.mean, chosen.mean) <= 0:
            chosen, roles, features = without, rest, remaining
            left_out += names
    return _Pruned(chosen, roles, compared, left_out)


def _metrics(target: Target, metric: str | None) -> tuple[str, str]:
    first, second = METRICS[target.task]
    return metric or first, second


def _why_left_out(column: ColumnRole, terms: dict[str, int], rows: int) -> str:
    if column.role == "unique":
        return f"text with {column.distinct:,} distinct values in {rows:,} training rows"
    return "text in which no word comes twice" if column.role == "text" and not terms[column.name] else ""


def count_terms(training: pd.DataFrame, column: ColumnRole) -> int:
    """How many terms a vectorizer finds in a text column; 0 if it finds none."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    parameters = vectorizer_parameters(column)
    vectorizer = TfidfVectorizer(**{**parameters, "ngram_range": tuple(parameters["ngram_range"])})
    try:
        return len(vectorizer.fit(training[column.name].dropna()).vocabulary_)
    except ValueError:
        return 0


def shape_of(training: pd.DataFrame, target: Target, roles: Sequence[ColumnRole], terms: dict[str, int]) -> Shape:
    import numpy as np

    if target.task == "classification":
        return Shape(len(training), target.task, roles, terms=terms)
    values = training[target.column].to_numpy("float64")
    spread = values.std() or 1.0
    skewness = float(np.mean(((values - values.mean()) / spread) ** 3))
    return Shape(len(training), target.task, roles, skewness, float(values.min()), terms)


def _sample_size(training: pd.DataFrame, target: Target, roles: Sequence[ColumnRole]) -> int:
    classes = training[target.column].nunique() if target.task == "classification" else 1
    width = sum({"date": 5, "text": 30}.get(column.role, 1) for column in roles) + 5
    rows = COMPARED_CELLS // (width * (classes if classes > 2 else 1))
    return max(FEWEST_ROWS, min(MOST_ROWS, rows))


def _describe_choice(chosen: Compared, compared: Sequence[Compared], sample: int, rows: int, split: Split) -> str:
    folds = f"{len(chosen.by_fold)} {'forward' if split.by == 'time' else 'hashed'} folds of "
    folds += f"{sample:,} of the {rows:,} training rows" if sample < rows else f"the {rows:,} training rows"
    others = "; ".join(f"{each.name} {each.mean:.4f}" for each in compared if each is not chosen and each.by_fold)
    return f"{chosen.name}: {chosen.metric} {chosen.mean:.4f} ± {chosen.standard_error:.4f} on {folds} ({others})"


def _describe_encoding(roles: Sequence[ColumnRole]) -> list[str]:
    lines = []
    for role, encoding in ENCODINGS.items():
        if names := [column.name for column in roles if column.role == role]:
            lines.append(f"{', '.join(names)}: {encoding}")
    return lines
