"""Counts starts and ends of workflows, agents and tools. This is the hot path, so children are resolved once."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING

from taskpilot_obs import semconv
from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs.exporters.prometheus.families import Level
from taskpilot_obs.exporters.prometheus.sums import End, exemplar_of
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Operation, Started, Status
from taskpilot_obs.semconv import NONE

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from taskpilot_obs.exporters.prometheus.families import Families
    from taskpilot_obs.exporters.prometheus.sums import Sums

_Key = tuple[Operation, str, str | None, bool]
_EndKey = tuple[Operation, str, str | None, bool, Status]
_START_KEY: Callable[[Started], _Key] = itemgetter(
    *map(Started._fields.index, ("operation", "name", "agent", "is_task"))
)
_END_KEY: Callable[[Invocation], _EndKey] = itemgetter(
    *map(Invocation._fields.index, ("operation", "name", "agent", "is_task", "status"))
)
_MAX_CACHED = 4_096


class Runs:
    """Counts runs. Children are cached by raw names only if no label value was changed, which bounds the memory."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._active = families.active
        self._starts: BoundedDict[_Key, Level] = BoundedDict(_MAX_CACHED)
        self._ends: BoundedDict[_EndKey, End] = BoundedDict(_MAX_CACHED)

    def start(self, sums: Sums, run: Started) -> None:
        """Raise the gauges of a run, and remember them until the run ends."""
        key = _START_KEY(run)
        level = self._starts.get(key)
        if level is None:
            level = self._llm_level(run) if run.operation in LLM_OPERATIONS else self._resolve_start(key)
        if level.gauges:
            self._active[run.invocation_id] = level
            if not level.change:
                sums.levels.append(level)
            level.change += 1

    def _llm_level(self, run: Started) -> Level:
        return Level((self._families.gauge(semconv.LLM_ACTIVE).child(run.agent or NONE, run.provider or NONE),))

    def settle(self, sums: Sums, done: Invocation) -> None:
        """Lower the gauges that the start of this run raised."""
        level = self._active.pop(done.invocation_id, None)
        if level is not None:
            if not level.change:
                sums.levels.append(level)
            level.change -= 1

    def end(self, sums: Sums, done: Invocation) -> None:
        """Count the end of a workflow, agent or tool."""
        key = _END_KEY(done)
        end = self._ends.get(key)
        if end is None:
            end = self._resolve_end(key)
        sums.end(end, done.duration_s, exemplar_of(done) if done.sampled else None)
        rollup = done.rollup
        if rollup is None:
            return
        if end.calls is not None:
            end.add_calls(rollup)
        if end.cost is not None and end.violations is not None:
            if rollup.cost > 0:
                sums.move(end.cost, rollup.cost)
            if rollup.violations:
                sums.move(end.violations, 1)

    def _resolve_start(self, key: _Key) -> Level:
        """Find a run's gauges, and create its other series at 0 while it is running."""
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
        found = Level(tuple(gauges))
        if families.changed == changed:
            self._starts[key] = found
        return found

    def _resolve_end(self, key: _EndKey) -> End:
        operation, name, agent, is_task, status = key
        families, changed = self._families, self._families.changed
        found = End()
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
            families.histogram(semconv.AGENT_LLM_CALLS).touch(name)
            families.histogram(semconv.AGENT_TOOL_CALLS).touch(name)
            families.gauge(semconv.AGENT_ACTIVE).touch(name)
        elif operation is Operation.TOOL:
            families.counter(semconv.TOOL_CALLS).touch(NONE, name)
            families.histogram(semconv.TOOL_DURATION).touch(name)
