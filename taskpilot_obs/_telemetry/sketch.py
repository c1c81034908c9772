"""Mergeable quantile sketches of durations, within half a percent, that merge by joining their bytes.

The bins are those of `LogarithmicBins`, in microseconds: every value of a bin is within `RELATIVE_ACCURACY` of its
middle. A row of the store carries its bin as a small integer, a summary carries a sketch; both give the same quantiles.

A sketch is a row of little-endian 16-bit words. Each says in its low 12 bits which bin, and in its high 4 bits that
4^n durations fell into it. So the sketch of two hours is the bytes of both, one after the other, and ten thousand of
them are counted by the interpreter's own C loops.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.sketch import LogarithmicBins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RELATIVE_ACCURACY: Final = 0.005
_BIN_BITS: Final = 12
MAX_BIN: Final = (1 << _BIN_BITS) - 1
"""Reaches to e^40 microseconds; everything longer is counted as that."""
_MICROSECONDS: Final = LogarithmicBins(RELATIVE_ACCURACY, 1.0, MAX_BIN)
_MAX_LEVEL: Final = 15
_US_PER_MS: Final = 1_000.0


def bin_of(milliseconds: float) -> int:
    """The bin of a duration; anything below a microsecond is in bin 0."""
    return _MICROSECONDS.number_of(milliseconds * _US_PER_MS)


def encode(bins: Mapping[int, int]) -> bytes:
    """The sketch of so many durations in each bin."""
    words = array("H")
    for number, amount in sorted(bins.items()):
        level, left = 0, amount
        while left and level < _MAX_LEVEL:
            words.extend([(level << _BIN_BITS) | number] * (left & 3))
            left >>= 2
            level += 1
        words.extend([(level << _BIN_BITS) | number] * left)
    if sys.byteorder == "big":  # pragma: no cover  no such machine to test on
        words.byteswap()
    return words.tobytes()


def decode(sketches: Iterable[bytes]) -> Counter[int]:
    """How many durations are in each bin of all the sketches together."""
    words = array("H", b"".join(sketches))
    if sys.byteorder == "big":  # pragma: no cover  no such machine to test on
        words.byteswap()
    bins: Counter[int] = Counter()
    for word, times in Counter(words).items():
        bins[word & MAX_BIN] += times << (2 * (word >> _BIN_BITS))
    return bins


def quantiles(bins: Mapping[int, int], *fractions: float) -> tuple[float | None, ...]:
    """The quantiles in milliseconds, each within half a percent of the value at its nearest rank.

    None for every fraction where there is nothing to rank.
    """
    found = _MICROSECONDS.quantiles(bins, *fractions)
    return tuple(None if value is None else value / _US_PER_MS for value in found)


def middle_of(number: int) -> float:
    """The value in milliseconds that stands for a bin: within half a percent of all its values."""
    return _MICROSECONDS.middle_of(number) / _US_PER_MS
