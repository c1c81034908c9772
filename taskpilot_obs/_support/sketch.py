"""Quantiles of durations in bounded memory, within 1 % of the exact value.

The sparse form of DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with
Relative-Error Guarantees", PVLDB 12(12), 2019): value x falls into bucket ceil(log x / log gamma), whose middle is at
most `RELATIVE_ERROR` away from it. Merging adds counts, so the error does not grow with the number of parts.
"""

from __future__ import annotations

from collections import Counter
from math import ceil, log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RELATIVE_ERROR: Final = 0.01
_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG: Final = 1 / log(_GAMMA)
_SHORTEST_S: Final = 1e-9
_LONGEST_S: Final = 1e9
"""Some 30 years. The two ends bound the number of buckets at 2,073."""
_FIRST_BUCKET: Final = ceil(log(_SHORTEST_S) * _PER_LOG)
_LAST_BUCKET: Final = ceil(log(_LONGEST_S) * _PER_LOG)


def nearest_rank(q: float, total: int) -> int:
    """Return the rank of a quantile among `total` sorted observations, from 0; every report uses this rule.

    It is the smallest observation that at least the share `q` of all do not exceed. So one slow run of ten is
    their 95th percentile, and of twenty it is not.
    """
    # Rounded, because 0.07 * 100 is a hair above 7.
    return max(0, ceil(round(q * total, 9)) - 1)


class Sketch:
    """Counts of durations in seconds, by bucket. Not safe for threads."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def add(self, durations: Iterable[float]) -> None:
        """Count durations in seconds; values that are not positive count as the shortest."""
        buckets = [
            ceil(log(seconds) * _PER_LOG)
            if _SHORTEST_S <= seconds <= _LONGEST_S
            else (_LAST_BUCKET if seconds > _LONGEST_S else _FIRST_BUCKET)
            for seconds in durations
        ]
        self._add(Counter(buckets))

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch to this one."""
        self._add(other.counts)

    def _add(self, more: Mapping[int, int]) -> None:
        counts = self.counts
        for bucket, count in more.items():
            counts[bucket] = counts.get(bucket, 0) + count

    def quantile(self, q: float) -> float | None:
        """The duration in seconds at the nearest rank of the sorted durations; None without any."""
        rank = nearest_rank(q, sum(self.counts.values()))
        seen = 0
        for bucket, count in sorted(self.counts.items()):
            seen += count
            if seen > rank:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return None
