"""What one batch adds up to: counters and gauges are moved once a batch, not once a record."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from taskpilot_obs.exporters.prometheus.families import MULTIPROCESS
from taskpilot_obs.semconv import Field

if TYPE_CHECKING:
    from prometheus_client import Histogram

    from taskpilot_obs.exporters.prometheus.families import Families
    from taskpilot_obs.records import Invocation
    from taskpilot_obs.semconv import Metric

Exemplar = dict[str, str]

_LONGEST_EXEMPLAR = 128 - len(Field.TRACE_ID) - len(Field.SPAN_ID)
"""OpenMetrics allows 128 characters for names and values together; one more raises after the value was counted."""
_FOREVER = float("inf")


class Sums:
    """Increments of one batch. Costs add up in `Decimal` and become a float once, so no cent is lost to rounding."""

    def __init__(self, families: Families) -> None:
        self.families = families
        self.pending: dict[Counter | Gauge, int | Decimal] = {}

    def add(self, metric: Metric, amount: int | Decimal, *labels: str) -> None:
        """Add to a counter; anything but a positive finite amount adds nothing."""
        if isinstance(amount, Decimal) and not amount.is_finite():
            return
        if amount > 0:
            self.move(self.families.counter(metric).child(*labels), amount)

    def move(self, child: Counter | Gauge, amount: int | Decimal) -> None:
        """Add to a child that is bound already; gauges may go down."""
        self.pending[child] = self.pending.get(child, 0) + amount

    def observe(self, histogram: Histogram, seconds: float, exemplar: Exemplar | None) -> None:
        """Observe a duration at once; one that is negative, infinite or not a number would spoil the sum for good."""
        if not 0 <= seconds < _FOREVER:
            return
        if exemplar is None:
            histogram.observe(seconds)
        else:
            histogram.observe(seconds, exemplar)


def apply(pending: tuple[Counter | Gauge, int | Decimal]) -> None:
    """Move one child by what a batch adds up to."""
    child, amount = pending
    if amount:
        child.inc(float(amount))


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
