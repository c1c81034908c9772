"""What the start and the end of a workflow, agent or tool add: the hot path, so its children are resolved once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs import semconv
from taskpilot_obs.exporters.prometheus.sums import End, exemplar_of
from taskpilot_obs.records import LLM_OPERATIONS, Operation, Status
from taskpilot_obs.semconv import NONE

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from taskpilot_obs.exporters.prometheus.families import Families
    from taskpilot_obs.exporters.prometheus.sums import Sums
    from taskpilot_obs.records import Invocation, Started

_StartKey = tuple[Operation, str, str | None, bool]
_EndKey = tuple[Operation, str, str | None, Status, bool]


class Runs:
    """Books runs. Children are remembered by raw names only where no label had to be changed, so memory is bounded."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._starts: dict[_StartKey, tuple[Gauge, ...]] = {}
        self._ends: dict[_EndKey, End] = {}

    def start(self, sums: Sums, run: Started) -> None:
        """Raise the gauges of a run; what was raised is kept until the run ends."""
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
            sums.levels[gauges] = sums.levels.get(gauges, 0) + 1

    def settle(self, sums: Sums, done: Invocation) -> None:
        """Lower the gauges that the start of this run has raised."""
        gauges = self._families.active.pop(done.invocation_id, None)
        if gauges is not None:
            sums.levels[gauges] = sums.levels.get(gauges, 0) - 1

    def end(self, sums: Sums, done: Invocation) -> None:
        """Book the end of a workflow, agent or tool."""
        operation = done.operation
        key = (operation, done.name, done.agent if operation is Operation.TOOL else None, done.status, done.is_task)
        end = self._ends.get(key)
        if end is None:
            end = self._resolve_end(key)
        sums.ends[end] = sums.ends.get(end, 0) + 1
        exemplar = exemplar_of(done)
        for histogram in end.durations:
            sums.observe(histogram, done.duration_s, exemplar)
        rollup = done.rollup
        if rollup is not None and end.cost is not None and end.violations is not None:
            if rollup.cost > 0:
                sums.move(end.cost, rollup.cost)
            if rollup.violations:
                sums.move(end.violations, 1)

    def _resolve_start(self, key: _StartKey) -> tuple[Gauge, ...]:
        """Find a run's gauges, and create its other series at 0 while it still runs."""
        operation, name, agent, is_task = key
        families, changed = self._families, self._families.changed
        gauges: list[Gauge] = []
        if operation is Operation.AGENT:
            self.declare(operation, name)
            gauges.append(families.gauge(semconv.AGENT_ACTIVE).child(name))
        if operation is Operation.TOOL:
            families.counter(semconv.TOOL_CALLS).touch(agent or NONE, name)
        if is_task or operation is Operation.WORKFLOW:
            self.declare(Operation.WORKFLOW, name)
            gauges.append(families.gauge(semconv.WORKFLOW_ACTIVE).child(name))
        found = tuple(gauges)
        if families.changed == changed:
            self._starts[key] = found
        return found

    def _resolve_end(self, key: _EndKey) -> End:
        operation, name, agent, status, is_task = key
        families, changed = self._families, self._families.changed
        found = End()
        if operation is Operation.AGENT:
            found.counters.append(families.counter(semconv.AGENT_RUNS).child(name, status))
            found.durations.append(families.histogram(semconv.AGENT_DURATION).child(name))
        if operation is Operation.TOOL:
            found.counters.append(families.counter(semconv.TOOL_CALLS).child(agent or NONE, name, status))
            found.durations.append(families.histogram(semconv.TOOL_DURATION).child(name))
        if is_task or operation is Operation.WORKFLOW:
            found.counters.append(families.counter(semconv.WORKFLOW_RUNS).child(name, status))
            found.durations.append(families.histogram(semconv.WORKFLOW_DURATION).child(name))
            found.cost = families.counter(semconv.WORKFLOW_COST).child(name, status)
            found.violations = families.counter(semconv.WORKFLOW_VIOLATION_RUNS).child(name)
        if families.changed == changed:
            self._ends[key] = found
        return found

    def declare(self, operation: Operation, name: str) -> None:
        """Create the series of a name at 0."""
        families = self._families
        if operation is Operation.WORKFLOW:
            families.counter(semconv.WORKFLOW_RUNS).touch(name)
            families.counter(semconv.WORKFLOW_COST).touch(name)
            families.counter(semconv.WORKFLOW_VIOLATION_RUNS).touch(name)
            families.histogram(semconv.WORKFLOW_DURATION).touch(name)
            families.gauge(semconv.WORKFLOW_ACTIVE).touch(name)
        elif operation is Operation.AGENT:
            families.counter(semconv.AGENT_RUNS).touch(name)
            families.histogram(semconv.AGENT_DURATION).touch(name)
            families.gauge(semconv.AGENT_ACTIVE).touch(name)
        elif operation is Operation.TOOL:
            families.counter(semconv.TOOL_CALLS).touch(NONE, name)
            families.histogram(semconv.TOOL_DURATION).touch(name)
