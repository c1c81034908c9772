"""A histogram that takes many observations at once, for which prometheus_client has no public API."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence


class BulkHistogram(Histogram):
    """prometheus_client's histogram, with one lock per bucket for a whole batch of observations.

    `observe_all` moves the same cells as `Histogram.observe`, which takes two locks and a walk over the bounds for each
    value: more than half of what a run would cost here. A test checks that both give the same result.
    """

    def observe_all(self, values: Sequence[float]) -> None:
        """Observe every value, each of them finite and not negative."""
        counts = Counter(map(partial(bisect_left, self._upper_bounds), values))
        self._sum.inc(sum(values))
        for index, count in counts.items():
            self._buckets[index].inc(count)

    def observe_repeated(self, value: float, times: int) -> None:
        """Observe one value several times."""
        self._sum.inc(value * times)
        self._buckets[bisect_left(self._upper_bounds, value)].inc(times)
