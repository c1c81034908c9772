"""Quantiles of durations in bounded memory, within 1 % of the exact value.

The sparse form of DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with
Relative-Error Guarantees", PVLDB 12(12), 2019): value x falls into bucket ceil(log x / log gamma), whose middle is at
most `RELATIVE_ERROR` away from it. Merging adds counts, so the error does not grow with the number of parts.
"""

from __future__ import annotations

from math import ceil, log
from typing import Final

RELATIVE_ERROR: Final = 0.01
_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG: Final = 1 / log(_GAMMA)
_SHORTEST_S: Final = 1e-9
_LONGEST_S: Final = 1e9
"""Some 30 years. The two ends bound the number of buckets at 2,073."""


class Sketch:
    """Counts of durations in seconds, by bucket. Not safe for threads."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def add(self, duration_s: float) -> None:
        """Count one duration; what is not a positive number counts as the shortest."""
        if not _SHORTEST_S <= duration_s <= _LONGEST_S:
            duration_s = _LONGEST_S if duration_s > _LONGEST_S else _SHORTEST_S
        bucket = ceil(log(duration_s) * _PER_LOG)
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch to this one."""
        counts = self.counts
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count

    def quantile(self, q: float) -> float | None:
        """The duration in seconds at rank floor(q * (n - 1)) of the sorted durations; None without any."""
        rank = int(q * (sum(self.counts.values()) - 1))
        seen = 0
        for bucket, count in sorted(self.counts.items()):
            seen += count
            if seen > rank:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return None
