"""What one batch adds up to: counters and gauges are moved once a batch, not once a record."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from taskpilot_obs.exporters.prometheus.families import MULTIPROCESS
from taskpilot_obs.semconv import Field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Counter, Gauge, Histogram

    from taskpilot_obs.exporters.prometheus.families import Families, Level
    from taskpilot_obs.records import Invocation
    from taskpilot_obs.semconv import Metric

Exemplar = dict[str, str]

_LONGEST_EXEMPLAR = 128 - len(Field.TRACE_ID) - len(Field.SPAN_ID)
"""OpenMetrics allows 128 characters for names and values together; one more raises after the value was counted."""
_FOREVER = float("inf")


class End:
    """The children that the end of a run moves, and how many such ends are not booked yet."""

    __slots__ = ("cost", "counters", "durations", "runs", "violations")

    def __init__(self) -> None:
        self.counters: list[Counter] = []
        self.durations: list[Histogram] = []
        self.cost: Counter | None = None
        self.violations: Counter | None = None
        self.runs = 0


class Sums:
    """Increments until they are booked. Costs add up in `Decimal` and become a float once: no cent is lost to rounding.

    It lives on from batch to batch: what a Ctrl-C leaves unbooked is booked with the next.
    """

    def __init__(self, families: Families) -> None:
        self.families = families
        self.levels: list[Level] = []
        """Those whose `change` is not 0 any more."""
        self.ends: list[End] = []
        """Those with `runs`."""
        self._amounts: dict[Counter, int | Decimal] = {}

    def add(self, metric: Metric, amount: int | Decimal, *labels: str) -> None:
        """Add to a counter; anything but a positive finite amount adds nothing."""
        if isinstance(amount, Decimal) and not amount.is_finite():
            return
        if amount > 0:
            self.move(self.families.counter(metric).child(*labels), amount)

    def move(self, child: Counter, amount: int | Decimal) -> None:
        """Add to a counter that is bound already."""
        self._amounts[child] = self._amounts.get(child, 0) + amount

    def changes(self) -> Iterator[tuple[Counter | Gauge, int | Decimal]]:
        """Every child that is to move, and by how much; each is told once."""
        while self.levels:
            level = self.levels.pop()
            change, level.change = level.change, 0
            if change:
                for gauge in level.gauges:
                    yield gauge, change
        while self.ends:
            end = self.ends.pop()
            runs, end.runs = end.runs, 0
            for counter in end.counters:
                yield counter, runs
        while self._amounts:
            yield self._amounts.popitem()

    def observe(self, histogram: Histogram, seconds: float, exemplar: Exemplar | None) -> None:
        """Observe a duration at once; one that is negative, infinite or not a number would spoil the sum for good."""
        if not 0 <= seconds < _FOREVER:
            return
        if exemplar is None:
            histogram.observe(seconds)
        else:
            histogram.observe(seconds, exemplar)


def exemplar_of(done: Invocation) -> Exemplar | None:
    """Trace and span of a sampled run; None where they would not be kept or would not be valid."""
    if not done.sampled or MULTIPROCESS:
        return None
    trace_id, span_id = done.trace_id, done.span_id
    if not trace_id or not span_id or len(trace_id) + len(span_id) > _LONGEST_EXEMPLAR:
        return None
    if not (trace_id.isalnum() and trace_id.isascii() and span_id.isalnum() and span_id.isascii()):
        return None
    return {Field.TRACE_ID: trace_id, Field.SPAN_ID: span_id}
