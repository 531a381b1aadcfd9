"""The rows that a search of a table may see: folds of the training side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from tasks.core.errors import CaseError, DataError
from tasks.features.results import Frame
from tasks.search.config import Search
from tasks.search.tabular.space import Space, choose_families
from tasks.train.classes import MIN_CLASS_EXAMPLES
from tasks.train.config import Split, Target
from tasks.train.tabular.column_roles import ColumnRole, column_roles
from tasks.train.tabular.default_models import Shape
from tasks.train.tabular.fit import read_examples
from tasks.train.tabular.folds import Fold, comparison_folds, sample_rows
from tasks.train.tabular.proposal import count_terms, shape_of
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import pandas as pd

    from tasks.search.tabular.problem import TabularProblem

FOLDS, FEW_ROWS_FOLDS, MANY_ROWS = 4, 5, 6000
MOST_CELLS = 12_000_000  # rows times columns: a sample of more rows is searched


@dataclass(frozen=True)
class SearchTable:
    """Folds, and what resampling takes together."""

    folds: tuple[Fold, ...]
    names: tuple[str, ...]
    clusters: tuple[Sequence[str] | None, ...]
    space: Space


def load_table(problem: TabularProblem) -> SearchTable:
    """Read the training side of a problem's frame, or a share of its rows.

    Raises: DataError when its rows can't be compared on; CaseError for settings that don't fit it.
    """
    frame, target, split, settings = problem.frame, problem.target, problem.train.split, problem.settings
    if (mitigation := problem.train.mitigation) not in ("", "reweigh"):
        raise CaseError(
            "A search fits single models, and this mitigation makes another of each.",
            where=f"train.{mitigation}",
            allowed="train.reweigh, or none",
            todo=f"Search without train.{mitigation}, adopt, and set it again: its verdict shows what it costs.",
        )
    examples = read_examples(frame, target, [*problem.train.reweigh, *problem.sensitive])
    training, _ = split_frame(examples, split, target)
    _check_rows(training, frame, target)
    monotone = _monotone(settings, frame)
    families = choose_families(settings.families, len(training), bool(monotone))
    rows = max(1000, min(int(problem.share * len(training)), MOST_CELLS // max(1, len(frame.columns))))
    sample = sample_rows(training, target, rows)
    groups = _groups(frame, sample) if split.by == "hash" else None
    gap = settings.gap if settings.gap is not None else _gap(frame, target)
    count = FOLDS if len(sample) > MANY_ROWS else FEW_ROWS_FOLDS
    folds = comparison_folds(sample, split, target, count=count, gap=gap, groups=groups)
    if len(folds) < 2:
        raise DataError(
            "There are too few rows to compare models on.",
            where=f"the training side, {len(training):,} rows, split by {split.by}",
            found=f"{len(folds)} usable folds of {count}" + (f" with a gap of {gap}" if gap else ""),
            allowed=f"two folds at least, each with {MIN_CLASS_EXAMPLES} rows of each class to fit on",
            todo="Take more data, or join rare classes in the SQL of features.examples.",
        )
    shape, counts = _shape(training, target, frame), training[target.column].value_counts()
    is_classification = target.task == "classification"
    space = Space(
        shape,
        families,
        classes=len(counts) if is_classification else 1,
        rarest=counts.min() / len(training) if is_classification else 1.0,
        monotone=monotone,
        own=problem.own,
        metric=problem.metric,
    )
    names = tuple(_name(k, len(folds), fold, split) for k, fold in enumerate(folds))
    clusters = tuple(None if groups is None else [*map(str, groups.loc[test.index])] for _, test in folds)
    return SearchTable(tuple(folds), names, clusters, space)


def _check_rows(training: pd.DataFrame, frame: Frame, target: Target) -> None:
    """Raises: DataError when nothing can be learned from these rows."""
    names = [column.name for column in frame.columns]
    if not any(training[name].nunique(dropna=False) > 1 for name in names):
        raise DataError(
            "Every feature has one value only.",
            where=f"the training side, {len(training):,} rows",
            found=", ".join(names[:10]),
            todo="Add features that differ between rows.",
        )
    if target.task == "regression":
        return
    counts = training[target.column].value_counts()
    if (few := counts[counts < 2 * MIN_CLASS_EXAMPLES]).size:
        raise DataError(
            "Classes have too few training rows for a search.",
            where=f"target {target.column}, {len(training):,} training rows",
            found=", ".join(f"{name} ({count})" for name, count in few.items()),
            allowed=f"at least {2 * MIN_CLASS_EXAMPLES} rows of each class: some to fit on, some to compare by",
            todo="Join rare classes in the SQL of features.examples, or take more data.",
        )


def _monotone(settings: Search, frame: Frame) -> dict[str, int]:
    kinds = {column.name: column.kind for column in frame.columns}
    for name in settings.monotone:
        if kinds.get(name) != "number":
            raise CaseError(
                f"No feature that is a number is called {name}.",
                where="search.monotone",
                found=name,
                allowed=", ".join(column for column, kind in kinds.items() if kind == "number") or "no feature",
            )
    return {name: 1 if way == "increasing" else -1 for name, way in settings.monotone.items()}


def _groups(frame: Frame, sample: pd.DataFrame) -> pd.Series | None:
    """The entity of each row, if rows share one: the columns that the case's views are joined by."""
    import pandas as pd

    keys = list(dict.fromkeys(key for column in frame.columns for key in column.entities))
    if not keys:
        return None
    entities = pd.read_parquet(frame.path, columns=["example_id", *keys]).set_index("example_id")
    found = entities.loc[sample["example_id"], keys[0]].astype(str)
    found.index = sample.index
    # values that come hundreds of times (three airports) are categories, not what examples are of
    return found if len(sample) / 50 < found.nunique() < len(sample) else None


def _gap(frame: Frame, target: Target) -> timedelta:
    """How long outcomes take: from the newest row with a target to the newest row."""
    import pandas as pd

    rows = pd.read_parquet(frame.path, columns=["event_timestamp", target.column])
    known = rows.loc[rows[target.column].notna(), "event_timestamp"].max()
    return (rows["event_timestamp"].max() - known).to_pytimedelta()  # type: ignore[no-any-return]


def _shape(training: pd.DataFrame, target: Target, frame: Frame) -> Shape:
    roles = [
        ColumnRole(each.name, "many_categories", each.distinct) if each.role == "unique" else each
        for each in column_roles(training, frame.columns)
    ]
    few = sample_rows(training, target, 10_000)
    terms = {column.name: max(1, count_terms(few, column)) for column in roles if column.role == "text"}
    return shape_of(training, target, roles, terms)


def _name(k: int, count: int, fold: Fold, split: Split) -> str:
    _, test = fold
    name = f"fold {k + 1} of {count}, {len(test):,} rows"
    if split.by == "time":
        times = test["event_timestamp"]
        name += f" from {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}"
    return name
