"""The part of a case that says where its data comes from and what is expected of it."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from tasks.foundation.config import Section, Sql


class Expectation(Section):
    """One Great Expectations expectation: its type without `expect_`, and its arguments as further keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    expect: str = Field(description="Type without the prefix, such as column_values_to_not_be_null.")
    severity: Literal["critical", "warning"] = Field(
        "critical", description="critical: its rows are quarantined, or the batch fails; warning: only reported."
    )
    values_of: str | None = Field(
        None, pattern=r"^\w+\.\w+$", description="TABLE.COLUMN of another source: the allowed values (a foreign key)."
    )
    why: str = Field("", description="The reason, shown beside each quarantined row.")

    @property
    def arguments(self) -> dict[str, object]:
        return dict(self.model_extra or {})


class Source(Section):
    """One table: where to read it, when its rows become known, and what is expected of them."""

    uri: str = Field(
        pattern=r"^(package|file)://.+",
        description="package://NAME/PATH in an installed package, or file://PATH (relative: from the case folder).",
    )
    sql: Sql = Field("SELECT * FROM raw", description="Makes the table from `raw`, the file as read.")
    key: tuple[str, ...] = Field(min_length=1, description="Columns that name a row.")
    time: str | None = Field(None, description="Timestamp column; splits the table into monthly batches.")
    known_at: str | None = Field(None, description="Timestamp column: nobody knows the row before (default: `time`).")
    late: dict[str, tuple[str, ...]] = Field(
        {}, description="Timestamp column: the columns that stay empty until then, such as outcomes."
    )
    tolerance: float = Field(0.01, ge=0, le=1, description="Share of bad rows above which a batch fails.")
    expectations: tuple[Expectation, ...] = Field((), description="What is expected of the rows.")
    batch_expectations: tuple[Expectation, ...] = Field(
        (),
        description="What is expected of the table of batches (batch, rows, first, last, hours_since_last): "
        "volume and freshness.",
    )

    @model_validator(mode="after")
    def _times_belong_together(self) -> Source:
        if self.time is None and (self.known_at or self.late):
            raise ValueError("known_at and late need time: name the column that says when a row happened")
        return self


class Data(Section):
    """All tables of a case."""

    sources: dict[str, Source] = Field(min_length=1, description="Tables by name, as the case's SQL calls them.")

    @model_validator(mode="after")
    def _references_exist(self) -> Data:
        for name, source in self.sources.items():
            for expectation in source.expectations:
                if expectation.values_of and expectation.values_of.split(".")[0] not in self.sources:
                    raise ValueError(
                        f"sources.{name}: values_of {expectation.values_of} names no source; "
                        f"there are: {', '.join(self.sources)}"
                    )
        return self
