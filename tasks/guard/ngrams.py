"""Character n-grams of a text as hashed features, computed by numpy: the same in training and in the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

SIZES = (2, 3, 4, 5)
BITS = 18  # of a feature's number: 262,144 features
WINDOW, STEP = 400, 200  # characters: an attack within a long text is not diluted by what surrounds it
LONG = 20_000  # characters from which on windows do not overlap, so that the time stays linear and short
_MULTIPLIERS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


def windows(length: int) -> list[tuple[int, int]]:
    """Start and end of the windows of a text of so many characters; a short text is one window."""
    if length <= WINDOW + STEP:
        return [(0, length)]
    step = STEP if length <= LONG else WINDOW
    return [(start, min(length, start + WINDOW)) for start in range(0, length - WINDOW + step, step)]


def ngram_features(text: str, sizes: Sequence[int] = SIZES, bits: int = BITS) -> np.ndarray:
    """The numbers of a text's distinct n-grams, sorted, int64."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *_hashes(text, sizes, bits)]))


def window_features(text: str, sizes: Sequence[int] = SIZES, bits: int = BITS) -> Iterator[np.ndarray]:
    """The distinct n-grams of the whole text, and of each window of a long one."""
    hashes = _hashes(text, sizes, bits)
    places = windows(len(text) + 2)
    if len(places) == 1 or len(text) <= LONG:
        yield np.unique(np.concatenate([np.empty(0, np.int64), *hashes]))
    if len(places) > 1:
        for start, end in places:
            parts = [each[start : max(start, end - size + 1)] for size, each in zip(sizes, hashes, strict=False)]
            yield np.unique(np.concatenate(parts))


def _hashes(text: str, sizes: Sequence[int], bits: int) -> list[np.ndarray]:
    """By size, the hashed n-gram at each position; a blank stands before and after the text."""
    letters = np.frombuffer(f" {text} ".encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    rolling = np.zeros(len(letters), np.uint64)
    first, second = _MULTIPLIERS
    hashes = []
    for size in range(1, max(sizes) + 1):
        count = len(letters) - size + 1
        if count <= 0:
            break
        rolling = rolling[:count] * first + letters[size - 1 :] + np.uint64(1)
        if size in sizes:
            mixed = rolling * second
            mixed ^= mixed >> np.uint64(29)
            hashes.append(((mixed * second) >> np.uint64(64 - bits)).astype(np.int64))
    return hashes
