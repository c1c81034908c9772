"""`taskpilot-obs agents` and `tools`: how the runs of each agent and the calls of each tool went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from taskpilot_obs.cli._output import print_csv, print_json, show
from taskpilot_obs.cli._store_options import (
    AsCsv,
    AsJson,
    From,
    Period,
    StoreUrl,
    Tenant,
    To,
    Where,
    asked_by,
    explained,
    one_format,
    period_of,
    say_incomplete,
)
from taskpilot_obs.cli._tables import Column, FittedTable, name_column
from taskpilot_obs.figures import at_least, count, ms, percent, usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.stats import AgentStats, RunStats, ToolStats


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(name="agents")(agents)
    app.command(name="tools")(tools)


def agents(
    *,
    store: StoreUrl = None,
    period: Period = "24h",
    start: From = None,
    end: To = None,
    tenant: Tenant = None,
    where: Where = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the runs of each agent: success, latency, LLM and tool calls beneath, and their cost."""
    one_format(as_json=as_json, as_csv=as_csv)
    with explained():
        from taskpilot_obs.stats import get_agent_stats

        found = get_agent_stats(period_of(period, start, end), store=store, **asked_by(where, tenant_id=tenant))
    _print(found, "agent", found.agents, as_json=as_json, as_csv=as_csv)


def tools(
    *,
    store: StoreUrl = None,
    period: Period = "24h",
    start: From = None,
    end: To = None,
    tenant: Tenant = None,
    where: Where = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the calls of each tool: success, latency and failures."""
    one_format(as_json=as_json, as_csv=as_csv)
    with explained():
        from taskpilot_obs.stats import get_tool_stats

        found = get_tool_stats(period_of(period, start, end), store=store, **asked_by(where, tenant_id=tenant))
    _print(found, "tool", found.tools, as_json=as_json, as_csv=as_csv)


_HEAD = ("runs", "successes", "failures", "success_rate", "p50_ms", "p95_ms", "llm_calls", "unpriced_calls")


def _print(
    found: AgentStats | ToolStats, what: str, lines: Mapping[str, RunStats], *, as_json: bool, as_csv: bool
) -> None:
    if as_json:
        print_json(found.model_dump_json(indent=2))
        return
    if as_csv:
        print_csv((what, *_HEAD, "tool_calls", "cost_usd"), ((name, *_values(line)) for name, line in lines.items()))
        return
    columns = (
        name_column(what),
        Column("runs"),
        Column("success"),
        Column("p50", rank=3),
        Column("p95", rank=1),
        Column("LLM calls", rank=2),
        Column("tool calls", rank=4),
        Column("cost"),
    )
    title = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC"
    show(FittedTable(title, columns, (_row(name, line) for name, line in lines.items()), more="--csv"))
    say_incomplete(found.incomplete_before)


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
