"""Counts starts and ends of workflows, agents and tools. This is the hot path, so children are resolved once."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from taskpilot_obs import semconv
from taskpilot_obs.exporters.prometheus.families import ActiveGauges
from taskpilot_obs.exporters.prometheus.labels import SeriesCache
from taskpilot_obs.exporters.prometheus.pending import CompletionSeries
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Operation, Started, Status
from taskpilot_obs.semconv import NONE, OTHER, Label

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from taskpilot_obs.exporters.prometheus.families import Families
    from taskpilot_obs.exporters.prometheus.pending import PendingIncrements

_Key = tuple[Operation, str, str | None, bool]
_CompletionKey = tuple[Operation, str, str | None, bool, Status]
_START_KEY: Callable[[Started], _Key] = itemgetter(
    *map(Started._fields.index, ("operation", "name", "agent", "is_task"))
)
_END_KEY: Callable[[Invocation], _CompletionKey] = itemgetter(
    *map(Invocation._fields.index, ("operation", "name", "agent", "is_task", "status"))
)
_DECLARED: Final = {
    Operation.WORKFLOW: (
        semconv.WORKFLOW_RUNS,
        semconv.WORKFLOW_COST,
        semconv.WORKFLOW_VIOLATION_RUNS,
        semconv.WORKFLOW_DURATION,
        semconv.WORKFLOW_ACTIVE,
    ),
    Operation.AGENT: (
        semconv.AGENT_RUNS,
        semconv.AGENT_DURATION,
        semconv.AGENT_LLM_CALLS,
        semconv.AGENT_TOOL_CALLS,
        semconv.AGENT_ACTIVE,
    ),
    Operation.TOOL: (semconv.TOOL_DURATION,),
}
"""The families whose series of a name begin at 0. The counter of tool calls has the name of the agent, too."""
_LABELS = {Operation.WORKFLOW: Label.WORKFLOW, Operation.AGENT: Label.AGENT, Operation.TOOL: Label.TOOL}
"""The label that shows the name of a run; a task's is shown as that of a workflow, too."""


class RunSeries:
    """Counts runs. Children are cached by the names of runs; folded names share them."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._active = families.active
        self._starts: SeriesCache[_Key, ActiveGauges] = SeriesCache()
        self._llm_starts: SeriesCache[tuple[str, str], ActiveGauges] = SeriesCache()
        self._completions: SeriesCache[_CompletionKey, CompletionSeries] = SeriesCache()

    def start(self, pending: PendingIncrements, run: Started) -> None:
        """Raise the gauges of a run, and remember them until the run ends."""
        key = _START_KEY(run)
        active = self._starts.get(key)
        if active is None:
            active = self._find_llm_start(run) if run.operation in LLM_OPERATIONS else self._find_start(key)
        if active.gauges:
            self._active[run.invocation_id] = active
            if not active.change:
                pending.changed.append(active)
            active.change += 1
        for overflow in active.overflows:
            pending.move(overflow, 1)

    def _find_llm_start(self, run: Started) -> ActiveGauges:
        names = agent, provider = run.agent or NONE, run.provider or NONE
        found = self._llm_starts.get(names)
        if found is None:
            show = self._families.admission.shown
            shown = show(Label.AGENT, agent), show(Label.PROVIDER, provider)
            found = self._llm_starts.find(names, shown, lambda: self._resolve_llm_start(*names))
        return found

    def _resolve_llm_start(self, agent: str, provider: str) -> ActiveGauges:
        with self._families.overflows() as overflows:
            gauge = self._families.gauge(semconv.LLM_ACTIVE).child(agent, provider)
        return ActiveGauges((gauge,), tuple(overflows))

    def _find_start(self, key: _Key) -> ActiveGauges:
        return self._starts.find(key, self._shown(*key), lambda: self._resolve_start(key))

    def _shown(self, operation: Operation, name: str, agent: str | None, is_task: bool) -> _Key:  # noqa: FBT001  as keys have it
        """Both names as labels show them; a name that one of its labels folds and another does not is kept."""
        show = self._families.admission.shown
        shown = show(_LABELS[operation], name)
        if shown == OTHER and is_task:
            shown = show(Label.WORKFLOW, name)
        return operation, shown, None if agent is None else show(Label.AGENT, agent), is_task

    def settle(self, pending: PendingIncrements, done: Invocation) -> None:
        """Lower the gauges that the start of this run raised."""
        active = self._active.pop(done.invocation_id, None)
        if active is not None:
            if not active.change:
                pending.changed.append(active)
            active.change -= 1

    def end(self, pending: PendingIncrements, done: Invocation) -> None:
        """Count the end of a workflow, agent or tool."""
        key = _END_KEY(done)
        series = self._completions.get(key)
        if series is None:
            shown = (*self._shown(*key[:-1]), done.status)
            series = self._completions.find(key, shown, lambda: self._resolve_end(key))
        pending.complete(series, done)
        rollup = done.rollup
        if rollup is None:
            return
        if series.calls is not None:
            series.add_calls(rollup)
        if series.cost is not None and series.violations is not None:
            if rollup.cost > 0:
                pending.move(series.cost, rollup.cost)
            if rollup.violations:
                pending.move(series.violations, 1)

    def _resolve_start(self, key: _Key) -> ActiveGauges:
        """Find a run's gauges, and create its other series at 0 while it is running."""
        operation, name, agent, is_task = key
        families = self._families
        gauges: list[Gauge] = []
        with families.overflows() as overflows:
            if operation is Operation.AGENT:
                self.declare(operation, name)
                gauges.append(families.gauge(semconv.AGENT_ACTIVE).child(name))
            if operation is Operation.TOOL:
                families.counter(semconv.TOOL_CALLS).init_child(agent or NONE, name)
            if is_task or operation is Operation.WORKFLOW:
                self.declare(Operation.WORKFLOW, name)
                gauges.append(families.gauge(semconv.WORKFLOW_ACTIVE).child(name))
        return ActiveGauges(tuple(gauges), tuple(overflows))

    def _resolve_end(self, key: _CompletionKey) -> CompletionSeries:
        with self._families.overflows() as overflows:
            found = self._completion(*key)
        found.counters += overflows
        return found

    def _completion(
        self,
        operation: Operation,
        name: str,
        agent: str | None,
        is_task: bool,  # noqa: FBT001  as keys have it
        status: Status,
    ) -> CompletionSeries:
        families, found = self._families, CompletionSeries()
        if operation is Operation.AGENT:
            found.counters.append(families.counter(semconv.AGENT_RUNS).child(name, status))
            found.durations.append(families.histogram(semconv.AGENT_DURATION).child(name))
            found.calls = (
                families.histogram(semconv.AGENT_LLM_CALLS).child(name),
                families.histogram(semconv.AGENT_TOOL_CALLS).child(name),
            )
        if operation is Operation.TOOL:
            found.counters.append(families.counter(semconv.TOOL_CALLS).child(agent or NONE, name, status))
            found.durations.append(families.histogram(semconv.TOOL_DURATION).child(name))
        if is_task or operation is Operation.WORKFLOW:
            found.counters.append(families.counter(semconv.WORKFLOW_RUNS).child(name, status))
            found.durations.append(families.histogram(semconv.WORKFLOW_DURATION).child(name))
            found.cost = families.counter(semconv.WORKFLOW_COST).child(name, status)
            found.violations = families.counter(semconv.WORKFLOW_VIOLATION_RUNS).child(name)
        return found

    def declare(self, operation: Operation, name: str) -> None:
        """Create the series of a name at 0."""
        for metric in _DECLARED.get(operation, ()):
            self._families.of(metric).init_child(name)
        if operation is Operation.TOOL:
            self._families.counter(semconv.TOOL_CALLS).init_child(NONE, name)
