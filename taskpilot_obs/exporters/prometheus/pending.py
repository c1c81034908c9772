"""Increments that wait for the end of a batch: counters and gauges change once per batch, not once per record."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from taskpilot_obs.exporters.prometheus.families import MULTIPROCESS
from taskpilot_obs.semconv import Field

if TYPE_CHECKING:
    from prometheus_client import Counter

    from taskpilot_obs.exporters.prometheus.families import ActiveGauges, Families
    from taskpilot_obs.exporters.prometheus.histogram import BulkHistogram
    from taskpilot_obs.records import Invocation, Rollup
    from taskpilot_obs.semconv import Metric

Exemplar = dict[str, str]

_LONGEST_EXEMPLAR = 128 - len(Field.TRACE_ID) - len(Field.SPAN_ID)
"""OpenMetrics allows 128 characters for names and values together; one more raises after the value was counted."""
_FOREVER = float("inf")


class CompletionSeries:
    """The children that change when a run of one kind completes, and the pending changes."""

    __slots__ = (
        *("calls", "cost", "counters", "durations", "llm_calls", "runs"),
        *("seconds", "tool_calls", "traced", "violations"),
    )

    def __init__(self) -> None:
        self.counters: list[Counter] = []
        self.durations: list[BulkHistogram] = []
        self.cost: Counter | None = None
        self.violations: Counter | None = None
        self.calls: tuple[BulkHistogram, BulkHistogram] | None = None
        """For agents: LLM calls and tool calls beneath a run."""
        self.runs = 0
        self.seconds: list[float] = []
        """Durations of the runs that were not sampled."""
        self.traced: list[Invocation] = []
        """The sampled runs."""
        self.llm_calls: list[float] = []
        """Of the runs with a roll-up."""
        self.tool_calls: list[float] = []

    def add_calls(self, rollup: Rollup) -> None:
        """Add the number of calls of one run; runs without a roll-up made none."""
        self.llm_calls.append(rollup.llm_calls)
        self.tool_calls.append(rollup.tool_calls)

    def book(self) -> None:
        """Apply the pending changes to the children, and reset."""
        runs, self.runs = self.runs, 0
        seconds, self.seconds = self.seconds, []
        traced, self.traced = self.traced, []
        for counter in self.counters:
            counter.inc(runs)
        for histogram in self.durations:
            if seconds:
                histogram.observe_all(seconds)
            if traced:
                histogram.observe_traced([run.duration_s for run in traced], lambda index: exemplar_of(traced[index]))
        if self.calls is not None:
            self._book_calls(runs, *self.calls)

    def _book_calls(self, runs: int, llm: BulkHistogram, tool: BulkHistogram) -> None:
        llm_calls, self.llm_calls = self.llm_calls, []
        tool_calls, self.tool_calls = self.tool_calls, []
        for histogram, calls in ((llm, llm_calls), (tool, tool_calls)):
            if calls:
                histogram.observe_all(calls)
            if runs > len(calls):
                histogram.observe_repeated(0, runs - len(calls))


class PendingIncrements:
    """What is added at the end of a batch.

    Costs are summed in `Decimal` and converted to float once, to avoid rounding errors.

    It is kept between batches, so that changes that a Ctrl-C left pending are applied with the next batch.
    """

    def __init__(self, families: Families) -> None:
        self.families = families
        self.changed: list[ActiveGauges] = []
        """Gauges of active runs with a pending change."""
        self.completed: list[CompletionSeries] = []
        """Series with pending `runs`."""
        self._amounts: dict[Counter, int | Decimal] = {}

    def add(self, metric: Metric, amount: int | Decimal, *labels: str) -> None:
        """Add to a counter; anything but a positive finite amount adds nothing."""
        if isinstance(amount, Decimal) and not amount.is_finite():
            return
        if amount > 0:
            self.move(self.families.counter(metric).child(*labels), amount)

    def move(self, child: Counter, amount: int | Decimal) -> None:
        """Add to a counter's child."""
        self._amounts[child] = self._amounts.get(child, 0) + amount

    def complete(self, series: CompletionSeries, done: Invocation) -> None:
        """Count one completed run; invalid durations (negative, infinite, NaN) are ignored: they spoil the sum."""
        if not series.runs:
            self.completed.append(series)
        series.runs += 1
        if not 0 <= done.duration_s < _FOREVER:
            return
        if done.sampled:
            series.traced.append(done)
        else:
            series.seconds.append(done.duration_s)

    def book(self) -> None:
        """Apply every pending change exactly once: a failed one is not repeated."""
        while self.changed:
            active = self.changed.pop()
            change, active.change = active.change, 0
            if change:
                for gauge in active.gauges:
                    gauge.inc(change)
        while self.completed:
            self.completed.pop().book()
        while self._amounts:
            counter, amount = self._amounts.popitem()
            counter.inc(float(amount))

    @staticmethod
    def observe(histogram: BulkHistogram, seconds: float, exemplar: Exemplar | None) -> None:
        """Observe a duration now, except invalid ones (negative, infinite, NaN), which would corrupt the sum."""
        if 0 <= seconds < _FOREVER:
            histogram.observe(seconds, exemplar)


def exemplar_of(done: Invocation) -> Exemplar | None:
    """Trace and span ID of a sampled run; None if they would not be stored or would be invalid."""
    if not done.sampled or MULTIPROCESS:
        return None
    trace_id, span_id = done.trace_id, done.span_id
    if not trace_id or not span_id or len(trace_id) + len(span_id) > _LONGEST_EXEMPLAR:
        return None
    if not (trace_id.isalnum() and trace_id.isascii() and span_id.isalnum() and span_id.isascii()):
        return None
    return {Field.TRACE_ID: trace_id, Field.SPAN_ID: span_id}
