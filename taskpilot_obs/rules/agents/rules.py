"""Rules per agent and per tool: failing, slow, stuck, silent."""

from __future__ import annotations

from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs.records import COUNTED, Status
from taskpilot_obs.rules.evidence import Watched, recent_value, stated
from taskpilot_obs.rules.model import Alert, AlertKind, AlertSignal, Recording, RuleGroup
from taskpilot_obs.rules.promql import INSTANCE, Count, bucket, matcher, number, quantile, ratio, slower
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.wording import AGENT, PERCENT, SECONDS, WHOLE, percent
from taskpilot_obs.semconv import Label

SHORT: Final = ("5m", "1h")
_BY_AGENT: Final = (Label.AGENT,)
_COUNTED: Final = matcher(Label.STATUS, *sorted(COUNTED))
_FAILED: Final = matcher(Label.STATUS, Status.ERROR, Status.TIMEOUT)

RUNS: Final = Count("agent", "agent_runs_counted", _BY_AGENT, semconv.AGENT_RUNS.name, (_COUNTED,))
GOOD_RUNS: Final = Count(
    "agent",
    "agent_runs_success",
    _BY_AGENT,
    semconv.AGENT_RUNS.name,
    (matcher(Label.STATUS, Status.SUCCESS),),
    zero_of="agent:agent_runs_counted",
)
ALL_RUNS: Final = Count("agent", "agent_runs", _BY_AGENT, semconv.AGENT_RUNS.name)
BUCKETS: Final = Count(
    "agent", "agent_run_duration_seconds_bucket", (*_BY_AGENT, "le"), f"{semconv.AGENT_DURATION.name}_bucket"
)
LLM_CALLS: Final = Count(
    "agent", "agent_run_llm_calls_bucket", (*_BY_AGENT, "le"), f"{semconv.AGENT_LLM_CALLS.name}_bucket"
)
TOOL_CALLS: Final = Count(
    "agent", "agent_run_tool_calls_bucket", (*_BY_AGENT, "le"), f"{semconv.AGENT_TOOL_CALLS.name}_bucket"
)
CALLS: Final = Count("tool", "agent_tool_calls_counted", (*_BY_AGENT, Label.TOOL), semconv.TOOL_CALLS.name, (_COUNTED,))
FAILED_CALLS: Final = Count(
    "tool",
    "agent_tool_calls_failed",
    (*_BY_AGENT, Label.TOOL),
    semconv.TOOL_CALLS.name,
    (_FAILED,),
    zero_of="tool:agent_tool_calls_counted",
)


def groups(settings: RuleSettings) -> tuple[RuleGroup, ...]:
    """Recording rules of the folder `agents`."""
    parts = {
        "runs": _runs(settings),
        "latency": _latency(settings),
        "tools": _tools(settings),
        "calls": [rule for count in (LLM_CALLS, TOOL_CALLS) for rule in count.rules(settings.scope, SHORT)],
    }
    return tuple(
        RuleGroup(f"taskpilot-agents-{name}", settings.evaluation_interval, tuple(rules))
        for name, rules in parts.items()
    )


def _runs(settings: RuleSettings) -> list[Recording]:
    windows = settings.fine_windows
    rules = [rule for count in (RUNS, GOOD_RUNS, ALL_RUNS) for rule in count.rules(settings.scope, windows)]
    rules += [Recording(_success(window), ratio(GOOD_RUNS.over(window), RUNS.over(window))) for window in windows]
    value = recent_value(settings, _success, RUNS.over, settings.agents.min_events)
    return [*rules, Recording("agent:agent_runs:success_ratio_recent", value)]


def _success(window: str) -> str:
    return f"agent:agent_runs:success_ratio_rate{window}"


def _latency(settings: RuleSettings) -> list[Recording]:
    windows = settings.fine_windows
    rules = BUCKETS.rules(settings.scope, windows)
    rules += [Recording(_p95(window), quantile(0.95, BUCKETS.over(window))) for window in windows]
    value = recent_value(settings, _p95, _finished, settings.agents.min_events)
    return [*rules, Recording("agent:agent_run_duration_seconds:p95_recent", value)]


def _finished(window: str) -> str:
    return bucket(BUCKETS.over(window), "+Inf")


def _p95(window: str) -> str:
    return f"agent:agent_run_duration_seconds:p95_rate{window}"


def _tools(settings: RuleSettings) -> list[Recording]:
    rules = [rule for count in (CALLS, FAILED_CALLS) for rule in count.rules(settings.scope, SHORT)]
    return rules + [
        Recording(
            f"tool:agent_tool_calls:error_ratio_rate{window}", ratio(FAILED_CALLS.over(window), CALLS.over(window))
        )
        for window in SHORT
    ]


def alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Alerts of the folder `agents`."""
    limits = settings.agents
    known = stated(settings.recent_windows, settings, limits.min_events, "counted runs")
    runs = Watched(
        "agent:agent_runs:success_ratio_recent",
        _success,
        RUNS.over,
        lambda window: f"({RUNS.over(window)} - {GOOD_RUNS.over(window)})",
        limits.min_events,
        outright=True,
        fault=1 - limits.success_percent / 100,
    )
    durations = Watched(
        "agent:agent_run_duration_seconds:p95_recent",
        _p95,
        _finished,
        lambda window: slower(BUCKETS.over(window), limits.p95_seconds, semconv.RUN_BUCKETS),
        limits.min_events,
        fault=0.05,
    )
    failing = AlertSignal("agent_success_rate", AlertKind.RATIO).warning(
        "TaskpilotAgentFailing",
        runs.holds(f"< {number(limits.success_percent / 100)}", settings.evidence),
        f"{AGENT} succeeds in only {PERCENT} of its runs (below {percent(limits.success_percent)})",
        f"{PERCENT} of the runs of this agent succeeded {known}.",
        settings.lasting,
    )
    slow = AlertSignal("agent_latency", AlertKind.LATENCY).warning(
        "TaskpilotAgentSlow",
        durations.holds(f"> {number(limits.p95_seconds)}", settings.evidence),
        f"{AGENT} is slow, p95 is {SECONDS} (above {limits.p95_seconds:.12g} s)",
        f"1 of 20 runs of this agent takes {SECONDS} or longer,"
        f" {stated(settings.recent_windows, settings, limits.min_events, 'runs')}.",
        settings.lasting,
    )
    return (failing, slow, _looping(settings), _stuck(settings), _silent(settings))


def _looping(settings: RuleSettings) -> Alert:
    limit = settings.agents.loop_tool_calls
    return AlertSignal("agent_looping", AlertKind.EVENT).warning(
        "TaskpilotAgentLooping",
        f"{slower(TOOL_CALLS.over('1h'), limit, semconv.CALL_BUCKETS)} > 0.5",
        f"{AGENT} loops: {WHOLE} runs made more than {limit:g} tool calls in the last hour",
        f"{WHOLE} runs of this agent that ended in the last hour made more than {limit:g} tool calls each. They may"
        " have succeeded; each call costs time, and most cost money.",
    )


def _stuck(settings: RuleSettings) -> Alert:
    after = settings.agents.stuck_after
    scope = settings.scope
    active = scope.select(semconv.AGENT_ACTIVE.name)
    runs = scope.select(semconv.AGENT_RUNS.name)
    by_process = scope.by(INSTANCE, Label.AGENT)
    expr = (
        f"sum by ({scope.by(Label.AGENT)}) (\n"
        f"  sum by ({by_process}) (\n"
        f"    (min_over_time({active}[{after}]) > 0) and ({active} offset {after} > 0)\n"
        f"  )\n"
        f"  unless on ({by_process})\n"
        f"  (sum by ({by_process}) (increase({runs}[{after}])) > 0)\n"
        f")"
    )
    return AlertSignal("agent_stuck", AlertKind.ABSENCE).warning(
        "TaskpilotAgentStuck",
        expr,
        f"{AGENT} seems stuck: {WHOLE} active, none finished for {after}",
        f"At least {WHOLE} runs of this agent have been active for {after} in processes where none of its runs ended"
        " in that time.",
        settings.lasting,
    )


def _silent(settings: RuleSettings) -> Alert:
    minimum = settings.agents.silent_min_runs
    conditions = [
        f"  (\n"
        f"    {ALL_RUNS.over(window)} offset 1d >= {minimum}\n"
        f"    unless {ALL_RUNS.over(window)} > 0\n"
        f"    unless {ALL_RUNS.over(window)} offset 7d < {minimum}\n"
        f"  )"
        for window in ("1h", "6h")
    ]
    info = f"count by ({settings.scope.by()}) ({settings.scope.select(semconv.INFO.name)})"
    expr = "(\n" + "\n  or\n".join(conditions) + f"\n)\nand on ({settings.scope.by()})\n{info}"
    return AlertSignal("agent_silent", AlertKind.ABSENCE).warning(
        "TaskpilotAgentSilent",
        expr,
        f"{AGENT} is silent: {WHOLE} runs in the same hours yesterday, none now",
        f"No run of this agent ended in the last hour or the last six, though {WHOLE} did in the same time"
        " a day ago, and not fewer than usual a week ago. The service itself is up.",
        settings.lasting,
    )
