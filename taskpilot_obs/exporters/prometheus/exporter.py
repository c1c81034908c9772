"""The exporter: finished records become counters, gauges and histograms in a registry."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from taskpilot_obs import semconv
from taskpilot_obs.exporters.prometheus.checks import book_decision, book_feedback
from taskpilot_obs.exporters.prometheus.families import MULTIPROCESS, families_of
from taskpilot_obs.exporters.prometheus.labels import clean
from taskpilot_obs.exporters.prometheus.llm_calls import book_llm_call
from taskpilot_obs.exporters.prometheus.sums import Sums, apply, exemplar_of
from taskpilot_obs.guarded import guarded
from taskpilot_obs.records import (
    LLM_OPERATIONS,
    CacheSize,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Stage,
    Started,
    Status,
)
from taskpilot_obs.semconv import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    from taskpilot_obs.records import Record
    from taskpilot_obs.self_telemetry import Tally
    from taskpilot_obs.semconv import Metric

T = TypeVar("T")

_WHERE = "prometheus"
_StartKey = tuple[Operation, str, str | None, bool]
_EndKey = tuple[Operation, str, str | None, Status, bool]


class _End(NamedTuple):
    """The children that the end of a run moves: resolved once per name and status."""

    counters: tuple[Counter, ...]
    durations: tuple[Histogram, ...]
    cost: Counter | None
    violations: Counter | None


def _installed_version() -> str:
    try:
        return version_of("taskpilot-obs")
    except PackageNotFoundError:  # imported from a checkout that was never installed
        return "uninstalled"


class PrometheusExporter:
    """Books records in the families of a registry. In memory only; the pipeline calls it, one batch at a time.

    Args:
        registry: default is prometheus_client's own. Exporters of one registry share its families.
        service: name of the observed service, for `taskpilot_obs_info`.
        service_version: its version, for `taskpilot_obs_info`.
        version: version of this library, for `taskpilot_obs_info`.
        drain: called before each scrape of the registry: books everything handed over so far.
        tally: counts records that could not be booked.

    Raises:
        ConfigurationError: the registry has a metric of the same name, or PROMETHEUS_MULTIPROC_DIR is no directory.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        service: str = "",
        service_version: str = "",
        version: str | None = None,
        drain: Callable[[], None] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._families = families_of(registry)
        self._drain = drain
        self._tally = tally
        self._starts: dict[_StartKey, tuple[Gauge, ...]] = {}
        self._ends: dict[_EndKey, _End] = {}
        self._info = (version or _installed_version(), service, service_version)
        with self._families.lock:
            self._families.gauge(semconv.INFO).child(*self._info).set(1)
            for metric in (semconv.FEEDBACK, semconv.FEEDBACK_REVISIONS):
                self._families.counter(metric).touch()
        self._families.before_scrape.sources.add(self)

    def drain(self) -> None:
        """Book everything handed over so far; a failure to do so is counted and does not stop the scrape."""
        if self._drain is not None:
            with guarded("prometheus.drain", self._tally):
                self._drain()

    def shutdown(self, timeout_s: float = 0.0) -> None:  # noqa: ARG002  nothing here takes time
        """Drain no more, and take back `taskpilot_obs_info`. What was counted stays in the registry."""
        self._drain = None
        self._families.before_scrape.sources.discard(self)
        others = list(self._families.before_scrape.sources)
        shared = any(isinstance(other, PrometheusExporter) and other._info == self._info for other in others)  # noqa: SLF001  of its own class
        if not MULTIPROCESS and not shared:
            with self._families.lock:
                self._families.gauge(semconv.INFO).forget(*self._info)

    # --- records -----------------------------------------------------------------------------------------------------

    def export(self, batch: Sequence[Record], /) -> None:
        """Book a batch. A record that cannot be booked is counted, and the others are booked all the same."""
        families = self._families
        with families.lock:
            sums = Sums(families)
            self._each(batch, lambda record: self._book(sums, record))
            self._each(sums.pending.items(), apply)

    def _each(self, items: Iterable[T], action: Callable[[T], None]) -> None:
        """Act on every item, at the price of one guard for all of them."""
        rest = iter(items)
        finished = False
        while not finished:
            with guarded(_WHERE, self._tally):
                for item in rest:
                    action(item)
                finished = True

    def _book(self, sums: Sums, record: Record) -> None:
        if isinstance(record, Invocation):
            self._end(sums, record)
        elif isinstance(record, Started):
            self._start(sums, record)
        elif isinstance(record, Decision):
            book_decision(sums, record)
        elif isinstance(record, Feedback):
            book_feedback(sums, record)
        elif isinstance(record, CacheSize):
            self._families.gauge(semconv.LLM_CACHE_SIZE).child(clean(record.cache)).set(record.entries)

    def _start(self, sums: Sums, run: Started) -> None:
        operation = run.operation
        if operation in LLM_OPERATIONS:
            gauges: tuple[Gauge, ...] = (
                self._families.gauge(semconv.LLM_ACTIVE).child(run.agent or NONE, run.provider or NONE),
            )
        else:
            key = (operation, run.name, run.agent if operation is Operation.TOOL else None, run.is_task)
            known = self._starts.get(key)
            gauges = self._resolve_start(key) if known is None else known
        if gauges:
            self._families.active[run.invocation_id] = gauges
            for gauge in gauges:
                sums.move(gauge, 1)

    def _end(self, sums: Sums, done: Invocation) -> None:
        for gauge in self._families.active.pop(done.invocation_id, ()):
            sums.move(gauge, -1)
        operation = done.operation
        if operation in LLM_OPERATIONS:
            book_llm_call(sums, done)
            return
        key = (operation, done.name, done.agent if operation is Operation.TOOL else None, done.status, done.is_task)
        end = self._ends.get(key) or self._resolve_end(key)
        for counter in end.counters:
            sums.move(counter, 1)
        exemplar = exemplar_of(done) if done.sampled else None
        for histogram in end.durations:
            sums.observe(histogram, done.duration_s, exemplar)
        if end.cost is not None and end.violations is not None and done.rollup is not None:
            if done.rollup.cost > 0:
                sums.move(end.cost, done.rollup.cost)
            if done.rollup.violations:
                sums.move(end.violations, 1)

    def _resolve_start(self, key: _StartKey) -> tuple[Gauge, ...]:
        """Find a run's gauges, and create its other series at 0 while it still runs."""
        operation, name, agent, is_task = key
        families, changed = self._families, self._families.changed
        gauges: list[Gauge] = []
        if operation is Operation.AGENT:
            self._touch_agent(name)
            gauges.append(families.gauge(semconv.AGENT_ACTIVE).child(name))
        if operation is Operation.TOOL:
            families.counter(semconv.TOOL_CALLS).touch(agent or NONE, name)
        if is_task or operation is Operation.WORKFLOW:
            self._touch_workflow(name)
            gauges.append(families.gauge(semconv.WORKFLOW_ACTIVE).child(name))
        found = tuple(gauges)
        if families.changed == changed:
            self._starts[key] = found
        return found

    def _resolve_end(self, key: _EndKey) -> _End:
        operation, name, agent, status, is_task = key
        families, changed = self._families, self._families.changed
        counters: list[Counter] = []
        durations: list[Histogram] = []
        cost = violations = None
        if operation is Operation.AGENT:
            counters.append(families.counter(semconv.AGENT_RUNS).child(name, status))
            durations.append(families.histogram(semconv.AGENT_DURATION).child(name))
        if operation is Operation.TOOL:
            counters.append(families.counter(semconv.TOOL_CALLS).child(agent or NONE, name, status))
            durations.append(families.histogram(semconv.TOOL_DURATION).child(name))
        if is_task or operation is Operation.WORKFLOW:
            counters.append(families.counter(semconv.WORKFLOW_RUNS).child(name, status))
            durations.append(families.histogram(semconv.WORKFLOW_DURATION).child(name))
            cost = families.counter(semconv.WORKFLOW_COST).child(name, status)
            violations = families.counter(semconv.WORKFLOW_VIOLATION_RUNS).child(name)
        found = _End(tuple(counters), tuple(durations), cost, violations)
        if families.changed == changed:
            self._ends[key] = found
        return found

    # --- names that are known before their first run -----------------------------------------------------------------

    def declare(self, operation: Operation, name: str) -> None:
        """Admit a decorated or configured name, and create its series at 0.

        An agent gets its `agent_*` series; those of `workflow_*` come with its first start as a task, for most agents
        never run as one. A tool's calls stand under the agent `__none__` until an agent starts it. An LLM call's model
        is known only when it ends, so nothing can be declared for it.
        """
        with self._families.lock:
            if operation is Operation.WORKFLOW:
                self._touch_workflow(name)
            elif operation is Operation.AGENT:
                self._touch_agent(name)
            elif operation is Operation.TOOL:
                self._families.counter(semconv.TOOL_CALLS).touch(NONE, name)
                self._families.histogram(semconv.TOOL_DURATION).touch(name)

    def declare_check(self, kind: DecisionKind, name: str, stages: Iterable[Stage] = tuple(Stage)) -> None:
        """Admit the name of a policy or guardrail, and create its series at 0, for a guardrail at these stages."""
        families = self._families
        with families.lock:
            if kind is DecisionKind.POLICY:
                families.counter(semconv.POLICY_DECISIONS).touch(name)
            elif kind is DecisionKind.GUARDRAIL:
                families.histogram(semconv.GUARDRAIL_CHECK_DURATION).touch(name)
                for stage in stages:
                    families.counter(semconv.GUARDRAIL_CHECKS).touch(name, stage)

    def _touch_workflow(self, name: str) -> None:
        self._families.counter(semconv.WORKFLOW_RUNS).touch(name)
        self._families.counter(semconv.WORKFLOW_COST).touch(name)
        self._families.counter(semconv.WORKFLOW_VIOLATION_RUNS).touch(name)
        self._families.histogram(semconv.WORKFLOW_DURATION).touch(name)
        self._families.gauge(semconv.WORKFLOW_ACTIVE).touch(name)

    def _touch_agent(self, name: str) -> None:
        self._families.counter(semconv.AGENT_RUNS).touch(name)
        self._families.histogram(semconv.AGENT_DURATION).touch(name)
        self._families.gauge(semconv.AGENT_ACTIVE).touch(name)

    # --- what others count -------------------------------------------------------------------------------------------

    def book(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter of the contract that no record stands for: self-telemetry, budgets."""
        with self._families.lock:
            if metric is semconv.RECORDS:
                self._families.counter(semconv.RECORDS_DROPPED).touch(*labels)
                self._families.counter(semconv.EXPORT_ERRORS).touch(*labels)
            self._families.counter(metric).child(*labels).inc(amount)

    def set_gauge(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge of the contract that no record stands for."""
        with self._families.lock:
            self._families.gauge(metric).child(*labels).set(value)

    def set_queue_size(self, exporter: str, size: int) -> None:
        """Say how many records wait for an exporter."""
        self.set_gauge(semconv.QUEUE_SIZE, (exporter,), size)
