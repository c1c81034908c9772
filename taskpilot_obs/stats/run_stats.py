"""How the runs of agents and the calls of tools went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, Unpack

from taskpilot_obs._telemetry.sketch import quantiles
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Operation
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Durations, Frozen, Usd
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.reading import QUANTILES

if TYPE_CHECKING:
    from taskpilot_obs.store import Store
    from taskpilot_obs.store.run_sums import RunSums

_OF_CALLS_ALONE: Final = ("model_name", "provider")
_PERCENT: Final = 100


class RunStats(Frozen):
    """The finished runs of one agent, or the finished calls of one tool."""

    runs: int
    successes: int
    failures: int
    """Errors, timeouts and refusals; what was cancelled, abandoned or interrupted is neither success nor failure."""
    success_rate: float | None
    """Percent of successes and failures together; None without either."""
    latency: Durations
    errors_by_type: Mapping[str, int]
    """Failures by class of error, or by status where no class is known."""
    llm_calls: int
    """Beneath these runs, like all below."""
    unpriced_calls: int
    """LLM calls without a known cost: with any, `cost_usd` is what is known of it at least."""
    tool_calls: int
    violations: int
    input_tokens: int
    output_tokens: int
    cost_usd: Usd
    cost_per_run_usd: Usd | None
    """None where an LLM call beneath has no known cost."""


class AgentStats(Frozen):
    """The runs of agents in a stretch of time, [start, end)."""

    start: datetime
    end: datetime
    agents: Mapping[str, RunStats]
    """By name, in falling order of runs. The run of an agent includes those of agents beneath it: do not add costs."""
    incomplete_before: datetime | None
    """Runs before this moment were deleted by age; None: the answer is complete."""


class ToolStats(Frozen):
    """The calls of tools in a stretch of time, [start, end)."""

    start: datetime
    end: datetime
    tools: Mapping[str, RunStats]
    """By name, in falling order of calls."""
    incomplete_before: datetime | None
    """As in `AgentStats`."""


def get_agent_stats(
    period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> AgentStats:
    """How the runs of each agent went: success, latency, and what happened beneath them.

    Args:
        period: as in `get_stats`.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: only runs with this value, as in `get_stats`; runs have no `model` and no `provider`.

    Raises:
        ConfigurationError: an argument cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    found, since = _runs(Operation.AGENT, start, end, store, asked)
    return AgentStats(start=start, end=end, agents=found, incomplete_before=since)


def get_tool_stats(
    period: Period = "24h", *, store: str | Store | None = None, now: datetime | None = None, **asked: Unpack[Asked]
) -> ToolStats:
    """How the calls of each tool went.

    Arguments as in `get_agent_stats`, and errors too; `agent` is the one that called.
    """
    start, end = bounds(period, now)
    found, since = _runs(Operation.TOOL, start, end, store, asked)
    return ToolStats(start=start, end=end, tools=found, incomplete_before=since)


def _runs(
    operation: Operation, start: datetime, end: datetime, store: str | Store | None, asked: Asked
) -> tuple[dict[str, RunStats], datetime | None]:
    from taskpilot_obs.store.questions import asked_of
    from taskpilot_obs.store.run_sums import run_sums

    filters = filters_of(asked)
    for column in _OF_CALLS_ALONE:
        if column in filters:
            name = column.removesuffix("_name")
            raise ConfigurationError(f"{name}: given, but runs have none; ask get_stats about calls")
    with asked_of(store, start, end, filters) as question:
        found = run_sums(question, operation)
    stats = {
        name: _stats_of(sums, found.durations.get(name, Counter()), found.errors.get(name, Counter()))
        for name, sums in found.sums.items()
    }
    return dict(sorted(stats.items(), key=lambda item: (-item[1].runs, item[0]))), found.incomplete_before


def _stats_of(sums: RunSums, durations: Counter[int], errors: Counter[str]) -> RunStats:
    counted = sums.successes + sums.failures
    p50, p95, p99 = quantiles(durations, *QUANTILES)
    return RunStats(
        runs=sums.runs,
        successes=sums.successes,
        failures=sums.failures,
        success_rate=_PERCENT * sums.successes / counted if counted else None,
        latency=Durations(mean_ms=sums.duration_total_ms / sums.runs, p50_ms=p50, p95_ms=p95, p99_ms=p99),
        errors_by_type=dict(errors.most_common()),
        **sums.beneath,
        cost_usd=sums.cost,
        cost_per_run_usd=None if sums.beneath["unpriced_calls"] else sums.cost / sums.runs,
    )
