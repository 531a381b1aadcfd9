"""Encoders beside those of scikit-learn: parts of dates, text for its vectorizers, and hashed n-grams of texts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin

from tasks.guard.ngrams import BITS, SIZES, ngram_features
from tasks.guard.subject import Subject

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATE_PARTS = ("year", "month", "weekday", "hour", "day_of_year", "days")
MISSING = (float("nan"),) * len(DATE_PARTS)


class DateParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Dates as ISO text to numbers: year, month, weekday (Monday is 0), hour with its fraction, day of year,
    and days since 1970.

    A moment without a zone is UTC. What is missing, or is no date, is NaN in each part.
    """

    def __init__(self, parts: Sequence[str] = DATE_PARTS) -> None:
        if unknown := [part for part in parts if part not in DATE_PARTS]:  # before any data is read
            raise ValueError(f"DateParts has no part {', '.join(unknown)}; it has {', '.join(DATE_PARTS)}")
        self.parts = parts

    def fit(self, table: Any, y: Any = None) -> DateParts:
        self.n_features_in_ = np.shape(table)[1]
        return self

    def transform(self, table: Any) -> np.ndarray:
        """From shape (rows, columns) to (rows, columns times parts), float64."""
        values = np.asarray(table, dtype=object)
        chosen = [DATE_PARTS.index(part) for part in self.parts]
        parts = np.empty((len(values), values.shape[1] * len(chosen)))
        for column in range(values.shape[1]):
            texts = values[:, column].tolist()
            known = {text: date_parts(text) for text in set(texts) if isinstance(text, str)}
            all_parts = np.array([known.get(text, MISSING) for text in texts]).reshape(len(texts), len(DATE_PARTS))
            parts[:, column * len(chosen) : (column + 1) * len(chosen)] = all_parts[:, chosen]
        return parts

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"{name}_{part}" for name in input_features for part in self.parts], dtype=object)


class TextColumn(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One column as the sequence of texts that a vectorizer of scikit-learn takes; a missing text is empty."""

    def fit(self, table: Any, y: Any = None) -> TextColumn:
        self.n_features_in_ = 1
        return self

    def transform(self, table: Any) -> list[str]:
        return [text if isinstance(text, str) else "" for text in np.asarray(table, dtype=object)[:, 0]]


class CharacterNgrams(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Texts to hashed character n-grams: which ones occur in the folded text, divided by the root of their number."""

    def __init__(self, sizes: Sequence[int] = SIZES, bits: int = BITS) -> None:
        if not sizes or min(sizes) < 1 or not 8 <= bits <= 22:  # before any data is read
            raise ValueError("CharacterNgrams takes sizes from 1, and 8 to 22 bits")
        self.sizes = sizes
        self.bits = bits

    def fit(self, table: Any, y: Any = None) -> CharacterNgrams:
        self.n_features_in_ = np.shape(table)[1]
        return self

    def transform(self, table: Any) -> csr_matrix:
        """From shape (rows, 1) to (rows, features), float32; a missing text is empty."""
        texts = np.asarray(table, dtype=object)[:, 0].tolist()
        features = [
            ngram_features(Subject(text).readings[0] if isinstance(text, str) else "", self.sizes, self.bits)
            for text in texts
        ]
        counts = np.array([len(each) for each in features])
        values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32)
        ends = np.concatenate([[0], np.cumsum(counts)])
        return csr_matrix((values, np.concatenate(features), ends), shape=(len(texts), 1 << self.bits))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"ngram_{number}" for number in range(1 << self.bits)], dtype=object)


def date_parts(text: str) -> tuple[float, ...]:
    """The parts of one date, as DATE_PARTS names them."""
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the last day of the year 9999 may be beyond it in UTC
        return MISSING
    hour = moment.hour + moment.minute / 60
    days = (moment - EPOCH).total_seconds() / 86400
    return moment.year, moment.month, moment.weekday(), hour, moment.timetuple().tm_yday, days
