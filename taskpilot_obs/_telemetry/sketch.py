"""Mergeable quantile sketches of durations, within half a percent, that merge by joining their bytes.

The bins are those of DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019): bin b holds the durations in
(gamma^(b-1), gamma^b] microseconds, so that every value of a bin is within `RELATIVE_ACCURACY` of its middle. A row of
the store carries its bin as a small integer, a summary carries a sketch; both give the same quantiles.

A sketch is a row of little-endian 16-bit words. Each says in its low 12 bits which bin, and in its high 4 bits that
4^n durations fell into it. So the sketch of two hours is the bytes of both, one after the other, and ten thousand of
them are counted by the interpreter's own C loops.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.sketch import nearest_rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RELATIVE_ACCURACY: Final = 0.005
GAMMA: Final = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY)
_LOG_GAMMA: Final = math.log(GAMMA)
_BIN_BITS: Final = 12
MAX_BIN: Final = (1 << _BIN_BITS) - 1
"""Reaches to e^40 microseconds; everything longer is counted as that."""
_MAX_LEVEL: Final = 15
_US_PER_MS: Final = 1_000.0


def bin_of(milliseconds: float) -> int:
    """The bin of a duration; anything below a microsecond is in bin 0."""
    microseconds = milliseconds * _US_PER_MS
    if microseconds <= 1.0:
        return 0
    return min(MAX_BIN, math.ceil(math.log(microseconds) / _LOG_GAMMA))


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
    total = sum(bins.values())
    if not total:
        return (None,) * len(fractions)
    ordered = sorted(bins.items())
    return tuple(_value_at(ordered, nearest_rank(fraction, total)) for fraction in fractions)


def _value_at(ordered: list[tuple[int, int]], rank: int) -> float:
    seen = 0
    number = 0
    for number, amount in ordered:  # noqa: B007  the last bin is the answer when none is left
        seen += amount
        if seen > rank:
            break
    return middle_of(number)


def middle_of(number: int) -> float:
    """The value in milliseconds that stands for a bin: within half a percent of all its values."""
    return 2 * math.pow(GAMMA, number) / (1 + GAMMA) / _US_PER_MS
