"""The exporter: finished records become counters, gauges and histograms in a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from taskpilot_obs import semconv
from taskpilot_obs._support.guarded import guarded, run_to_completion
from taskpilot_obs.exporters.prometheus.checks import book_decision, book_feedback
from taskpilot_obs.exporters.prometheus.experiments import EXPERIMENT, book_run, book_stop, book_verdict
from taskpilot_obs.exporters.prometheus.families import MULTIPROCESS, families_of
from taskpilot_obs.exporters.prometheus.labels import clean
from taskpilot_obs.exporters.prometheus.llm_calls import LlmCalls
from taskpilot_obs.exporters.prometheus.pending import PendingIncrements
from taskpilot_obs.exporters.prometheus.runs import RunSeries
from taskpilot_obs.records import (
    LLM_OPERATIONS,
    AuditEvent,
    CacheSize,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Stage,
    Started,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.exporters.prometheus.families import Families
    from taskpilot_obs.records import Operation, Record
    from taskpilot_obs.semconv import Metric

_COMPONENT = "prometheus"


def private_registry() -> CollectorRegistry:
    """A registry that nothing scrapes, for metrics that are exported in another way only."""
    return CollectorRegistry()


class PrometheusExporter:
    """Counts records in the families of a registry. In memory only; the pipeline calls it with one batch at a time.

    Args:
        registry: default is prometheus_client's own. Exporters of one registry share its families.
        service: name of the observed service, for `taskpilot_obs_info`.
        service_version: its version, for `taskpilot_obs_info`.
        version: version of this library, for `taskpilot_obs_info`.
        drain: called before each scrape of the registry, to export everything recorded so far.
        counters: counts records that could not be exported.

    Raises:
        ConfigurationError: the registry has a metric of the same name, or PROMETHEUS_MULTIPROC_DIR is not a directory.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        namespace: str = "",
        service: str = "",
        service_version: str = "",
        version: str = "",
        drain: Callable[[], None] | None = None,
        counters: InternalCounters | None = None,
    ) -> None:
        self._families = families_of(registry, namespace)
        self._drain = drain
        self._counters = counters
        self._runs = RunSeries(self._families)
        self._llm_calls = LlmCalls(self._families)
        self._pending = PendingIncrements(self._families)
        self._info = (version, service, service_version)
        self._families.run_aside(self._introduce)
        self._families.sources.add(self)

    @property
    def families(self) -> Families:
        """The families that this exporter changes."""
        return self._families

    def _introduce(self) -> None:
        self._families.gauge(semconv.INFO).child(*self._info).set(1)
        for metric in (semconv.FEEDBACK, semconv.FEEDBACK_REVISIONS):
            self._families.counter(metric).init_child()

    def drain(self) -> None:
        """Export everything recorded so far; a failure is counted and does not stop the scrape."""
        if self._drain is not None:
            with guarded("prometheus.drain", self._counters):
                self._drain()

    def shutdown(self, timeout_s: float = 0.0) -> None:  # noqa: ARG002  nothing here takes time
        """Stop draining, and remove `taskpilot_obs_info`. Counted values stay in the registry."""
        self._drain = None
        self._families.sources.discard(self)
        others = list(self._families.sources)
        shared = any(isinstance(other, PrometheusExporter) and other._info == self._info for other in others)  # noqa: SLF001  of its own class
        if not MULTIPROCESS and not shared:
            self._families.run_aside(lambda: self._families.gauge(semconv.INFO).forget(*self._info))

    # --- records -----------------------------------------------------------------------------------------------------

    def export(self, batch: Sequence[Record], /) -> None:
        """Export a batch. A record that fails is counted as an internal error, and the others are exported anyway."""
        self._families.run(lambda: self._book_all(batch))

    def _book_all(self, batch: Sequence[Record]) -> None:
        records = iter(batch)
        run_to_completion(lambda: self._book_rest(records))

    def _book_rest(self, records: Iterator[Record]) -> None:
        self._finish(lambda: self._book(records))
        self._finish(self._pending.book)

    def _finish(self, action: Callable[[], None]) -> None:
        """Repeat the action until it finishes, with one guard: each repetition continues after the item that failed."""
        finished = False
        while not finished:
            with guarded(_COMPONENT, self._counters):
                action()
                finished = True

    def _book(self, records: Iterator[Record]) -> None:
        pending, runs, llm_calls = self._pending, self._runs, self._llm_calls
        for record in records:
            if isinstance(record, Invocation):
                runs.settle(pending, record)
                if record.operation in LLM_OPERATIONS:
                    llm_calls.end(pending, record)
                else:
                    runs.end(pending, record)
                if EXPERIMENT in record.attributes:
                    book_run(pending, record)
            elif isinstance(record, Started):
                runs.start(pending, record)
            elif isinstance(record, Decision):
                book_decision(pending, record)
            elif isinstance(record, Feedback):
                book_feedback(pending, record)
                book_verdict(pending, record)
            elif isinstance(record, AuditEvent):
                book_stop(pending, record)
            elif isinstance(record, CacheSize):
                self._families.gauge(semconv.LLM_CACHE_SIZE).child(clean(record.cache)).set(record.entries)

    # --- names known before their first run --------------------------------------------------------------------------

    def declare(self, operation: Operation, name: str) -> None:
        """Register a decorated or configured name, and create its series at 0.

        An agent gets its `agent_*` series; its `workflow_*` series are created at its first start as a task, because
        most agents never run as one. A tool's calls have the agent `__none__` until an agent starts it. The model of
        an LLM call is known only at its end, so nothing can be declared for it.
        """
        self._families.run_aside(lambda: self._runs.declare(operation, name))

    def declare_check(self, kind: DecisionKind, name: str, stages: Iterable[Stage] = tuple(Stage)) -> None:
        """Register the name of a policy or guardrail, and create its series at 0; a guardrail's at these stages."""
        self._families.run_aside(lambda: self._declare_check(kind, name, stages))

    def _declare_check(self, kind: DecisionKind, name: str, stages: Iterable[Stage]) -> None:
        families = self._families
        if kind is DecisionKind.POLICY:
            families.counter(semconv.POLICY_DECISIONS).init_child(name)
        elif kind is DecisionKind.GUARDRAIL:
            families.histogram(semconv.GUARDRAIL_CHECK_DURATION).init_child(name)
            for stage in stages:
                families.counter(semconv.GUARDRAIL_CHECKS).init_child(name, stage)

    # --- other counters ----------------------------------------------------------------------------------------------

    def book(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter of the contract that is not derived from records: self-telemetry, budgets."""
        self._families.run(lambda: self._count(metric, labels, amount))

    def _count(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        if metric is semconv.RECORDS:
            self._families.counter(semconv.RECORDS_DROPPED).init_child(*labels)
            self._families.counter(semconv.EXPORT_ERRORS).init_child(*labels)
        self._families.counter(metric).child(*labels).inc(amount)

    def set_gauge(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge of the contract that is not derived from records."""
        self._families.run(lambda: self._families.gauge(metric).child(*labels).set(value))

    def set_queue_size(self, exporter: str, size: int) -> None:
        """Set the gauge of records that wait for an exporter."""
        self.set_gauge(semconv.QUEUE_SIZE, (exporter,), size)
