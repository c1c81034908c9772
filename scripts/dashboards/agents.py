"""Agents: which one fails, which one is slow, which one hangs, and what each costs."""

from __future__ import annotations

from scripts.dashboards import common
from scripts.dashboards.model import Dashboard, Panel, Query, Row
from scripts.dashboards.panels import COUNT, PER_MINUTE, PERCENT, SECONDS, USD, Column, heatmap, lines, table
from scripts.dashboards.promql import (
    BAD_STATUSES,
    COUNTED_STATUSES,
    RANGE,
    Selector,
    events,
    events_per_step,
    per_minute,
    quantile,
    share,
    total,
    whole,
)
from taskpilot_obs import semconv
from taskpilot_obs.semconv import Label

_select = Selector((Label.AGENT,))
_RUNS = _select(semconv.AGENT_RUNS)
_COUNTED = _select(semconv.AGENT_RUNS, status=COUNTED_STATUSES)
_FAILED = _select(semconv.AGENT_RUNS, status=BAD_STATUSES)
_BUCKETS = _select(semconv.AGENT_DURATION, "_bucket")
_ACTIVE = _select(semconv.AGENT_ACTIVE)
_TOOL_CALLS = _select(semconv.TOOL_CALLS)
_TOOLS_FAILED = _select(semconv.TOOL_CALLS, status=BAD_STATUSES)
_TOOLS_COUNTED = _select(semconv.TOOL_CALLS, status=COUNTED_STATUSES)
_COST = _select(semconv.LLM_COST)
_LLM_CALLS_A_RUN = _select(semconv.AGENT_LLM_CALLS, "_bucket")
_TOOL_CALLS_A_RUN = _select(semconv.AGENT_TOOL_CALLS, "_bucket")
_LOOP_STEPS = ((None, "green"), (80.0, "orange"))
"""Where the alert on agents that loop begins."""
_NO_RUNS = "No agent runs in this time range"
_NO_TOOLS = "No tool calls in this time range"
_FAILURE_STEPS = ((None, "green"), (5.0, "orange"), (10.0, "red"))


_TABLE = table(
    "Agents over the time range",
    "Failures are runs that ended as error, timeout or blocked, of the counted ones. Sort by a column to find the "
    "worst; choose the agent at the top and open its section below.",
    Label.AGENT,
    Column(
        "Failed",
        share(events(_FAILED, by=Label.AGENT), events(_COUNTED, by=Label.AGENT), Label.AGENT),
        PERCENT,
        _FAILURE_STEPS,
        1,
    ),
    Column("Runs", whole(events(_RUNS, by=Label.AGENT)), COUNT),
    Column("p95", quantile(0.95, _BUCKETS, RANGE, Label.AGENT), SECONDS, decimals=2),
    Column("Active now", total(_ACTIVE, Label.AGENT), COUNT),
    Column("Tool calls", whole(events(_TOOL_CALLS, by=Label.AGENT)), COUNT),
    Column("Tool calls a run, p95", quantile(0.95, _TOOL_CALLS_A_RUN, RANGE, Label.AGENT), COUNT, _LOOP_STEPS, 0),
    Column("LLM cost", events(_COST, by=Label.AGENT), USD, decimals=2),
    no_value=_NO_RUNS,
    height=9,
    below="taskpilot-llm",
)

_COMPARED: tuple[Panel, ...] = (
    lines(
        "Runs per minute, by agent",
        "Finished runs, whatever their status. A line that ends is an agent gone silent.",
        Query(per_minute(_RUNS, Label.AGENT), "{{agent}}"),
        unit=PER_MINUTE,
        no_value=_NO_RUNS,
    ),
    lines(
        "Failed runs by agent",
        "Share of the counted runs that ended as error, timeout or blocked.",
        Query(
            share(events_per_step(_FAILED, Label.AGENT), events_per_step(_COUNTED, Label.AGENT), Label.AGENT),
            "{{agent}}",
        ),
        unit=PERCENT,
        steps=_FAILURE_STEPS,
        no_value=_NO_RUNS,
    ),
    lines(
        "Active runs by agent",
        "Runs in progress. One that stays up with no completions is stuck.",
        Query(total(_ACTIVE, Label.AGENT), "{{agent}}"),
        unit=COUNT,
        no_value="No agent has run yet",
    ),
    lines(
        "Failed tool calls by tool",
        "Share of the counted calls that ended as error, timeout or blocked.",
        Query(
            share(events_per_step(_TOOLS_FAILED, Label.TOOL), events_per_step(_TOOLS_COUNTED, Label.TOOL), Label.TOOL),
            "{{tool}}",
        ),
        unit=PERCENT,
        steps=_FAILURE_STEPS,
        no_value=_NO_TOOLS,
    ),
    lines(
        "Tool duration, p95 by tool",
        "Of all agents: the duration of a tool does not know its agent, so the agent filter does not apply.",
        Query(quantile(0.95, _select(semconv.TOOL_DURATION, "_bucket"), by=Label.TOOL), "{{tool}}", exemplar=True),
        unit=SECONDS,
        no_value=_NO_TOOLS,
    ),
    lines(
        "LLM cost per hour, by agent",
        "Cost of the calls with a known price, booked at the agent that made them.",
        Query(f"60 * {per_minute(_COST, Label.AGENT)}", "{{agent}}"),
        unit=USD,
        stacked=True,
        no_value="No priced call in this time range",
    ),
)

_WITHIN_A_RUN: tuple[Panel, ...] = (
    lines(
        "LLM calls per run, p95 by agent",
        "Calls beneath one run, those of nested agents included. It grows where an agent corrects itself again and "
        "again, and each round costs more than the one before.",
        Query(quantile(0.95, _LLM_CALLS_A_RUN, by=Label.AGENT), "{{agent}}"),
        unit=COUNT,
        no_value=_NO_RUNS,
    ),
    lines(
        "Tool calls per run, p95 by agent",
        "Calls beneath one run, those of nested agents included. An agent that loops stands out here although each of "
        "its calls succeeds. Dashed: where the alert begins.",
        Query(quantile(0.95, _TOOL_CALLS_A_RUN, by=Label.AGENT), "{{agent}}"),
        unit=COUNT,
        steps=_LOOP_STEPS,
        no_value=_NO_RUNS,
    ),
)

_ONE_AGENT: tuple[Panel, ...] = (
    lines(
        "Runs per minute, by how they ended",
        "All statuses of this agent.",
        Query(per_minute(_RUNS, Label.STATUS), "{{status}}"),
        unit=PER_MINUTE,
        stacked=True,
        no_value="No runs of this agent",
    ),
    heatmap(
        "Duration of runs",
        "How many runs took how long, over time. Points are exemplars: click one to open its trace.",
        events_per_step(_BUCKETS, "le"),
        no_value="No runs of this agent",
    ),
    lines(
        "Active runs",
        "Runs of this agent in progress.",
        Query(total(_ACTIVE), "active"),
        unit=COUNT,
        no_value="This agent has not run yet",
    ),
    lines(
        "Tool calls per minute",
        "Which tools this agent uses, and how their calls end.",
        Query(per_minute(_TOOL_CALLS, f"{Label.TOOL}, {Label.STATUS}"), "{{tool}} {{status}}"),
        unit=PER_MINUTE,
        no_value="No tool calls of this agent",
        width=12,
    ),
    lines(
        "LLM cost per hour, by model",
        "What this agent spends, and on which model.",
        Query(f"60 * {per_minute(_COST, Label.MODEL)}", "{{model}}"),
        unit=USD,
        stacked=True,
        no_value="No priced call of this agent",
        width=12,
    ),
)

DASHBOARD = Dashboard(
    uid="taskpilot-agents",
    title="taskpilot / Agents",
    description="Each agent's rate, errors, duration, tools, runs in progress and cost.",
    variables=common.variables(Label.AGENT),
    rows=(
        Row("All agents", (_TABLE,)),
        Row("Compared", _COMPARED),
        Row("Within a run", _WITHIN_A_RUN),
        # Collapsed, because Grafana asks nothing for a closed row: with 200 agents an open one would ask 1,000 queries.
        Row("Agent: $agent", _ONE_AGENT, repeat=Label.AGENT, collapsed=True),
    ),
    annotations=common.marks(),
)
