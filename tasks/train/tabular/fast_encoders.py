"""Fitted encoders as dictionaries, for one row of plain arrays."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class FastEncoder:
    """A fitted OrdinalEncoder or TargetEncoder as dictionaries: ten times faster for one row."""

    codes: tuple[dict[str, np.ndarray], ...]  # by column: the encoding of each category
    missing: tuple[np.ndarray, ...]
    unknown: tuple[np.ndarray, ...]

    def transform(self, block: np.ndarray) -> np.ndarray:
        import numpy as np

        coded = [
            [codes.get(v, unknown) if v == v else missing for v in block[:, j].tolist()]
            for j, (codes, missing, unknown) in enumerate(zip(self.codes, self.missing, self.unknown, strict=True))
        ]
        return np.hstack([np.array(column) for column in coded])


def fast_encoder(step: Any) -> Any:
    """A copy of an encoder for arrays without column names, of which scikit-learn would warn on each call."""
    quiet = copy(step)
    quiet.__dict__.pop("feature_names_in_", None)
    family, parameters = type(step).__name__, step.get_params()
    lenient = parameters.get("handle_unknown") == "use_encoded_value" or family == "TargetEncoder"
    words = all(isinstance(c, str) or c != c for known in getattr(step, "categories_", ()) for c in known)
    return _tabulate(quiet) if family in ("OrdinalEncoder", "TargetEncoder") and lenient and words else quiet


def _tabulate(encoder: Any) -> FastEncoder:
    """Encode each category once, a missing value, and a word that no column knows."""
    import numpy as np

    unknown, nan = "\0", float("nan")
    inputs = [[*(c for c in known if c == c), nan, unknown] for known in encoder.categories_]
    longest = max(map(len, inputs))
    block = np.empty((longest, len(inputs)), dtype=object)
    for j, words in enumerate(inputs):
        block[:, j] = words + [nan] * (longest - len(words))
    outputs = np.hsplit(np.asarray(encoder.transform(block), np.float64), len(inputs))
    codes, missing, others = [], [], []
    for words, output in zip(inputs, outputs, strict=True):
        codes.append(dict(zip(words[:-2], output, strict=False)))
        missing.append(output[len(words) - 2])
        others.append(output[len(words) - 1])
    return FastEncoder(tuple(codes), tuple(missing), tuple(others))
