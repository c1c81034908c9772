"""`taskpilot-obs agents` and `tools`: how the runs of each agent and the calls of each tool went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from taskpilot_obs._support.figures import at_least, count, ms, percent, usd
from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._option_groups import grouped
from taskpilot_obs.cli._output import show
from taskpilot_obs.cli._tables import FittedTable, figure_columns, name_column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.stats import AgentStats, RunStats, ToolStats


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(name="agents")(grouped(agents))
    app.command(name="tools")(grouped(tools))


def agents(
    *,
    span: options.Span = options.OF_A_DAY,
    narrowed: options.Narrowed = options.EVERYTHING,
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print the runs of each agent: success, latency, LLM and tool calls beneath, and their cost."""
    with options.explained():
        from taskpilot_obs.stats import get_agent_stats

        found = get_agent_stats(span.asked, store=span.store, **narrowed.filters())
    _print(found, "agent", found.agents, form)


def tools(
    *,
    span: options.Span = options.OF_A_DAY,
    narrowed: options.Narrowed = options.EVERYTHING,
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print the calls of each tool: success, latency and failures."""
    with options.explained():
        from taskpilot_obs.stats import get_tool_stats

        found = get_tool_stats(span.asked, store=span.store, **narrowed.filters())
    _print(found, "tool", found.tools, form)


_HEAD = ("runs", "successes", "failures", "success_rate", "p50_ms", "p95_ms", "llm_calls", "unpriced_calls")


def _print(found: AgentStats | ToolStats, what: str, lines: Mapping[str, RunStats], form: options.OutputFormat) -> None:
    head = (what, *_HEAD, "tool_calls", "cost_usd")
    if form.printed(found, head, ((name, *_values(line)) for name, line in lines.items())):
        return
    columns = (
        name_column(what),
        *figure_columns({"runs": 0, "success": 0, "p50": 3, "p95": 1, "LLM calls": 2, "tool calls": 4, "cost": 0}),
    )
    title = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC"
    show(FittedTable(title, columns, (_row(name, line) for name, line in lines.items()), more="--csv"))
    options.say_incomplete(found.incomplete_before)


def _values(line: RunStats) -> tuple[object, ...]:
    return (
        line.runs,
        line.successes,
        line.failures,
        line.success_rate,
        line.latency.p50_ms,
        line.latency.p95_ms,
        line.llm_calls,
        line.unpriced_calls,
        line.tool_calls,
        line.cost_usd,
    )


def _row(name: str, line: RunStats) -> tuple[str, ...]:
    return (
        name,
        count(line.runs),
        percent(line.success_rate),
        ms(line.latency.p50_ms),
        ms(line.latency.p95_ms),
        count(line.llm_calls),
        count(line.tool_calls),
        at_least(usd(line.cost_usd), unknown=line.unpriced_calls),
    )
