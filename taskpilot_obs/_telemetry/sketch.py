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
from bisect import bisect_left
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
        _extend(words, number, amount)
    return _to_bytes(words)


def _extend(words: array[int], number: int, left: int) -> None:
    level = 0
    while left and level < _MAX_LEVEL:
        words.extend([(level << _BIN_BITS) | number] * (left & 3))
        left >>= 2
        level += 1
    words.extend([(level << _BIN_BITS) | number] * left)


def _to_bytes(words: array[int]) -> bytes:
    if sys.byteorder == "big":  # pragma: no cover  no such machine to test on
        words.byteswap()
    return words.tobytes()


def _from_bytes(sketch: bytes) -> array[int]:
    words = array("H", sketch)
    if sys.byteorder == "big":  # pragma: no cover  no such machine to test on
        words.byteswap()
    return words


def decode(sketches: Iterable[bytes]) -> Counter[int]:
    """How many durations are in each bin of all the sketches together."""
    bins: Counter[int] = Counter()
    for word, times in Counter(_from_bytes(b"".join(sketches))).items():
        bins[word & MAX_BIN] += times << (2 * (word >> _BIN_BITS))
    return bins


def subtract(sketch: bytes, bins: Mapping[int, int]) -> bytes | None:
    """The sketch without so many durations of each bin; None where it does not hold them."""
    words = _from_bytes(sketch)
    for number, amount in bins.items():
        first = last = bisect_left(words, number, key=_bin_in)
        held = 0
        while last < len(words) and _bin_in(words[last]) == number:
            held += 1 << (2 * (words[last] >> _BIN_BITS))
            last += 1
        if held < amount:  # in a sketch that others were joined to, words of one bin stand in several places
            return _subtract_slowly(sketch, bins)
        left = array("H")
        _extend(left, number, held - amount)
        words[first:last] = left
    return _to_bytes(words)


def _bin_in(word: int) -> int:
    return word & MAX_BIN


def _subtract_slowly(sketch: bytes, bins: Mapping[int, int]) -> bytes | None:
    left = decode([sketch])
    left.subtract(bins)
    return None if min(left.values(), default=0) < 0 else encode(left)


def quantiles(bins: Mapping[int, int], *fractions: float) -> tuple[float | None, ...]:
    """The quantiles in milliseconds, each within half a percent of the value at its nearest rank.

    None for every fraction where there is nothing to rank.
    """
    found = _MICROSECONDS.quantiles(bins, *fractions)
    return tuple(None if value is None else value / _US_PER_MS for value in found)


def middle_of(number: int) -> float:
    """The value in milliseconds that stands for a bin: within half a percent of all its values."""
    return _MICROSECONDS.middle_of(number) / _US_PER_MS
