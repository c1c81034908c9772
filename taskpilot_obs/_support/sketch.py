"""Quantiles of durations in bounded memory, within a chosen relative error.

The bins are those of DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with
Relative-Error Guarantees", PVLDB 12(12), 2019). Merging adds counts, so the error does not grow with the number of
parts.
"""

from __future__ import annotations

from collections import Counter
from math import ceil, inf, log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def nearest_rank(q: float, total: int) -> int:
    """Return the rank of a quantile among `total` sorted observations, from 0; every report uses this rule.

    It is the smallest observation that at least the share `q` of all do not exceed. So one slow run of ten is
    their 95th percentile, and of twenty it is not.
    """
    # Rounded, because 0.07 * 100 is a hair above 7.
    return max(0, ceil(round(q * total, 9)) - 1)


class LogarithmicBins:
    """Logarithmic bins: bin b holds the values in (gamma^(b-1), gamma^b], all close to the bin's middle.

    Args:
        relative_error: how far the middle is from a value of the bin at most: 0.01 for 1 %.
        shortest: smaller values, and those that are not positive, count as this one.
        last: the number of the last bin, in which larger values count too.
    """

    __slots__ = ("_first", "_gamma", "_last", "_log_gamma", "_shortest")

    def __init__(self, relative_error: float, shortest: float, last: int) -> None:
        self._gamma = (1 + relative_error) / (1 - relative_error)
        self._log_gamma = log(self._gamma)
        self._shortest, self._first, self._last = shortest, ceil(log(shortest) / self._log_gamma), last

    def number_of(self, value: float) -> int:
        """The bin of a value."""
        if self._shortest < value < inf:
            return min(self._last, ceil(log(value) / self._log_gamma))
        return self._last if value == inf else self._first

    def middle_of(self, number: int) -> float:
        """The value that stands for all values of a bin."""
        return float(2 * self._gamma**number / (1 + self._gamma))

    def quantiles(self, counts: Mapping[int, int], *fractions: float) -> tuple[float | None, ...]:
        """The quantiles of counted bins, each the middle of the bin at its nearest rank; None where nothing counts."""
        total = sum(counts.values())
        if not total:
            return (None,) * len(fractions)
        ordered = sorted(counts.items())
        return tuple(self.middle_of(_bin_at(ordered, nearest_rank(fraction, total))) for fraction in fractions)


def _bin_at(ordered: list[tuple[int, int]], rank: int) -> int:
    seen = 0
    for number, amount in ordered:
        seen += amount
        if seen > rank:
            return number
    return ordered[-1][0]


RELATIVE_ERROR: Final = 0.01
_SECONDS: Final = LogarithmicBins(RELATIVE_ERROR, 1e-9, 1_036)
"""From a nanosecond to some 30 years: 2,073 bins at most."""


class Sketch:
    """Counts of durations in seconds, by bin. Not safe for threads."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def add(self, durations: Iterable[float]) -> None:
        """Count durations in seconds; values that are not positive count as the shortest."""
        self._add(Counter(map(_SECONDS.number_of, durations)))

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch to this one."""
        self._add(other.counts)

    def _add(self, more: Mapping[int, int]) -> None:
        counts = self.counts
        for number, count in more.items():
            counts[number] = counts.get(number, 0) + count

    def quantile(self, q: float) -> float | None:
        """The duration in seconds at the nearest rank of the sorted durations; None without any."""
        return _SECONDS.quantiles(self.counts, q)[0]
