"""Decides what each column of a table is used for, and states the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cli.new_options import TableOptions, Task, chosen_task, guess_task
from tasks.core.errors import DataError
from tasks.data.profile.measure import MAX_LISTED_VALUES
from tasks.data.profile.results import ColumnProfile, TableProfile
from tasks.features.config import free_name

FeatureKind = Literal["number", "category", "text", "date"]
HELD_OUT = 0.2  # share of the rows in the hold-out set
MIN_HELD_OUT = 30  # rows in it
MIN_CLASS_ROWS = 10  # of a class, so that some of them are on both sides of the split
_IDENTIFIER = re.compile(r"(^|[_ .-])(id|ids|key|uuid|guid|number|no|nr|code|ref|account|sku)$", re.IGNORECASE)
_UNNAMED = re.compile(r"unnamed: ?0|column0+|_c0|", re.IGNORECASE)  # a title that is empty, as readers fill it in
_INDEX = re.compile(r"index|level_0|x|row_?names?", re.IGNORECASE)


@dataclass(frozen=True)
class Feature:
    column: ColumnProfile
    kind: FeatureKind

    @property
    def name(self) -> str:
        """The column's name, unless the platform has a column of that name."""
        return free_name(self.column.name)


@dataclass(frozen=True)
class TablePlan:
    """What a table's columns are used for."""

    profile: TableProfile
    task: Task
    why_task: str
    metric: str
    target: ColumnProfile
    positive: str | None
    keys: tuple[str, ...]
    time: ColumnProfile | None
    features: tuple[Feature, ...]
    left_out: Mapping[str, str]
    rare_classes: Mapping[str, int]  # classes with too few rows to learn from

    @property
    def target_name(self) -> str:
        """The target's name in examples."""
        return free_name(self.target.name)

    @property
    def known(self) -> int:
        """Rows with a target that is learned from."""
        return self.profile.rows - self.target.empty - sum(self.rare_classes.values())

    def without(self, columns: Mapping[str, str]) -> TablePlan:
        """The plan without these features, each with the reason."""
        features = tuple(feature for feature in self.features if feature.name not in columns)
        return replace(self, features=features, left_out={**self.left_out, **columns})

    @property
    def suspected(self) -> dict[str, str]:
        """Features that may be leaks, with the reason."""
        names, metric = {feature.column.name for feature in self.features}, self.profile.metric
        suspected = {
            free_name(
                column.name
            ): f"alone reaches {metric} {column.alone:.3f}: is it known before {self.target.name} is?"
            for column in self.profile.columns
            if column.is_leak and column.name in names
        }
        parts = [name for name in self.profile.parts if name in names]
        if parts and parts == list(self.profile.parts):
            for name in parts:
                others = " and ".join(part for part in parts if part != name)
                suspected.setdefault(free_name(name), f"with {others} it makes up {self.target.name} exactly")
        return suspected


def plan_table(profile: TableProfile, options: TableOptions) -> TablePlan:
    """Decide over every column. The profile has the target's scores, and the options fit it.

    Raises: DataError when too few rows or no feature is left.
    """
    target = profile.column(str(options.target))
    why = guess_task(target)[1]
    task = chosen_task(target, options)
    keys = options.key or _find_key(profile, options)
    rare = {v: n for v, n in target.counts.items() if n < MIN_CLASS_ROWS} if task == "classification" else {}
    rare = {} if len(target.counts) - len(rare) < 2 else rare
    time = profile.column(options.time) if options.time else None
    left_out: dict[str, str] = {}
    features = []
    for column in profile.columns:
        if column.name in (target.name, *keys):
            continue
        reason = "by --drop" if column.name in options.drop else ""
        reason = reason or _reason_to_leave_out(column, profile, options)
        if reason:
            left_out[column.name] = reason
        else:
            features.append(Feature(column, _feature_kind(column, profile, options)))
    plan = TablePlan(
        profile=profile,
        task=task,
        why_task="by --task" if options.task else why,
        metric=options.metric or ("r2" if task == "regression" else "auc"),
        target=target,
        positive=_positive(target, options, task),
        keys=tuple(keys),
        time=time,
        features=tuple(features),
        left_out=left_out,
        rare_classes=rare,
    )
    if plan.known * HELD_OUT < MIN_HELD_OUT:
        found = f"{plan.known:,} rows with a {target.name}" + (
            f" of {profile.rows:,}" if plan.known < profile.rows else ""
        )
        allowed = f"{MIN_HELD_OUT / HELD_OUT:.0f} at least, a fifth of which is held out to evaluate on"
        raise DataError(
            "There are too few rows to train and evaluate a model.", where=profile.name, found=found, allowed=allowed
        )
    if not features:
        found = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or ", ".join(profile.names)
        todo = "Name a column of messages or notes by --text, or add columns that tell something about the target."
        raise DataError("No usable feature column is left.", where=profile.name, found=found, todo=todo)
    return plan


def _positive(target: ColumnProfile, options: TableOptions, task: Task) -> str | None:
    """The class whose probability is predicted: the last of two in sorted order, unless the user names one."""
    if task == "regression" or target.distinct != 2 or target.is_number:
        return options.positive
    return options.positive or max(target.counts)


def _find_key(profile: TableProfile, options: TableOptions) -> tuple[str, ...]:
    """A column that names each row: unique, and an identifier by its name or, the first one, by its form."""
    taken = {options.target, options.time, *options.drop, *options.text}
    for i, column in enumerate(profile.columns):
        possible = column.unique and not column.fractions and column.read_type in ("text", "integer", "number")
        if not possible or column.name in taken or is_row_number(column, i):
            continue
        if _IDENTIFIER.search(_words(column.name)) or (i == 0 and _looks_like_code(column, profile.rows)):
            return (column.name,)
    return ()


def is_row_number(column: ColumnProfile, place: int) -> bool:
    """Whether it is the number that pandas or R writes before each row: no name of the row, as sorting changes it."""
    unnamed = bool(_UNNAMED.fullmatch(column.name)) and column.unique and column.read_type == "integer"
    return place == 0 and (unnamed or (column.ascending and bool(_INDEX.fullmatch(column.name))))


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)  # customerID as customer_ID


def _looks_like_code(column: ColumnProfile, rows: int) -> bool:
    """Whether near-unique values are numbers of an enumeration, or words without a meaning of their own."""
    if column.read_type == "text":
        return column.words < 2
    if column.fractions or column.least is None:
        return False
    digits = {len(f"{abs(bound):.0f}") for bound in (column.least, column.most)}
    return column.ascending or column.most - column.least < 1.2 * rows or (len(digits) == 1 and max(digits) >= 6)


def _reason_to_leave_out(column: ColumnProfile, profile: TableProfile, options: TableOptions) -> str:
    """Why a column is no feature; empty: it is one."""
    place, filled = profile.names.index(column.name), profile.rows - column.empty
    if column.name in options.text or column.name == options.time:
        return ""
    if column.type == "json":
        return "nested values: derive columns from them in the source's sql"
    if not filled:
        return "no row has a value"
    if column.distinct < 2 and not column.empty:
        return f"constant, {next(iter(column.counts), column.least)} in every row"
    if column.personal:
        return f"personal data: {', '.join(column.personal)}"
    if is_row_number(column, place):
        return "the number of the row, as pandas writes it"
    near_unique = filled >= MAX_LISTED_VALUES and column.distinct >= 0.9 * filled
    named = bool(_IDENTIFIER.search(_words(column.name)))
    if column.read_type == "integer" and near_unique and (named or _looks_like_code(column, profile.rows)):
        return f"identifier: {column.distinct:,} different whole numbers in {filled:,} rows"
    if column.read_type == "text" and _is_free_text(column, filled):
        return ""
    if column.read_type == "text" and column.distinct > max(MAX_LISTED_VALUES, filled / 2):
        return f"identifier: {column.distinct:,} different words in {filled:,} rows"
    return ""


def _is_free_text(column: ColumnProfile, filled: int) -> bool:
    return column.words >= 4 and column.length >= 20 and column.distinct > max(MAX_LISTED_VALUES, filled / 10)


def _feature_kind(column: ColumnProfile, profile: TableProfile, options: TableOptions) -> FeatureKind:
    if column.read_type in ("timestamp", "date"):
        return "date"
    if column.read_type != "text":
        return "number"
    return "text" if column.name in options.text or _is_free_text(column, profile.rows - column.empty) else "category"


def decisions(plan: TablePlan) -> Iterator[tuple[str, str, str]]:
    """Every decision that is not obvious: its group, the column, and the reason."""
    profile, target = plan.profile, plan.target
    for note in profile.notes:
        yield "read", "", note
    yield "target", target.name, f"{plan.task}: {plan.why_task}"
    if target.empty:
        share = target.empty / profile.rows
        yield (
            "target",
            target.name,
            (
                f"{target.empty:,} of {profile.rows:,} rows ({share:.0%}) have none and are not learned from. Is it "
                "not known yet, missing, or did nothing happen? If nothing did, fill it in the source's sql"
            ),
        )
    for name, n in plan.rare_classes.items():
        yield "target", target.name, f"class {name} has {n} rows, too few to learn from: they are left out"
    if not plan.keys:
        yield "key", "", "no column names a row: its features do, with a number where these are equal"
    if profile.duplicates:
        yield "key", "", f"{profile.duplicates:,} rows repeat another one"
    for name, why in plan.suspected.items():
        yield "suspected", name, why
    for column in profile.columns:
        if reading := column.reading:
            words = ", ".join(f"{word!r} ({n:,} rows)" for word, n in reading.words.items())
            form = f" as {reading.format}" if reading.format else ""
            odd = ", ".join(f"{word!r}" for word in [*reading.rejected][:5])
            text = f"{reading.type}{form}" + (f"; missing where it says {words}" if words else "")
            yield "parsed", column.name, text + (f"; rows with {odd} are quarantined" if odd else "")
    names = {feature.column.name: feature.name for feature in plan.features} | {plan.target.name: plan.target_name}
    for column_name, name in names.items():
        if name != column_name:
            yield "renamed", column_name, f"{name}, since the platform has a column of that name"
    for feature in plan.features:
        if feature.kind == "text":
            yield "parsed", feature.column.name, f"text of {feature.column.words:.0f} words on average"
        elif feature.kind == "date":
            yield "parsed", feature.column.name, "a date: its parts are features"
    for name, why in plan.left_out.items():
        yield "left out", name, why
