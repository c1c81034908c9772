"""`/benchmarks`: providers, models, prompts or days side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from markupsafe import Markup
from pydantic import Field as Option

from taskpilot_obs._support import figures
from taskpilot_obs._support.charts import Bar, axis_end, row_bar
from taskpilot_obs.server.blocks import Block, Cell, FormField, Page, Table, TableColumn, figure, figures_in, text
from taskpilot_obs.server.pages import benchmark_runs
from taskpilot_obs.server.pages.query import FilteredQuery, filter_fields, link, time_fields
from taskpilot_obs.server.params import Name, PeriodText
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats import BenchmarkSummary

TOP: Final = 100
"""Most rows on the page; CSV and JSON have them all."""
GROUPS: Final = (("model", "Model"), ("provider", "Provider"), ("prompt", "Prompt"), ("day", "Day"))


class BenchmarksQuery(FilteredQuery):
    """Which calls, and how they are grouped."""

    period: PeriodText = "30d"
    group_by: Literal["provider", "model", "prompt", "day"] = "model"
    run: Name | None = Option(None, description="ID of the benchmark run whose arms are shown.")


def build(ask: Questions, query: BenchmarksQuery) -> Page:
    """A table with bars, and one for each of latency and cost."""
    lines = ask.summaries_over(query.over(ask.now), query.group_by, query.asked())
    blocks: list[Block] = [_table(lines, query)]
    drawn = [
        _bars(lines, query, "latency", "Latency, 95th percentile", lambda line: line.p95_latency_ms, figures.ms),
        _bars(lines, query, "first-token", "Time to first token, p95", _first_token, figures.ms),
        _bars(lines, query, "cost", "Cost per call", lambda line: _float(line.avg_cost), figures.usd),
    ]
    # CSV answers for a table that has nothing to draw, too.
    blocks += [table for table in drawn if query.table or any(row[1].raw is not None for row in table.rows)]
    blocks += benchmark_runs.blocks(ask, query.run, whole=query.table is not None)
    return Page(
        "Benchmarks",
        "Success, latency, tokens and cost side by side. Intervals are Wilson score intervals at 95 %.",
        blocks,
        [
            *time_fields(query),
            FormField("group_by", "One line for each", query.group_by, GROUPS),
            *filter_fields(ask, query, "provider", "model", "prompt_name"),
        ],
        link("/v1/benchmarks/summaries", group_by=query.group_by, tenant=query.tenant, **query.dates()),
    )


def name_of(line: BenchmarkSummary) -> str:
    """What a line is about."""
    if line.day is not None:
        return f"{line.day:%Y-%m-%d}"
    return line.model_name or line.prompt_name or line.provider or "(none)"


def _table(lines: tuple[BenchmarkSummary, ...], query: BenchmarksQuery) -> Table:
    head = ("calls", "success", "interval", "p50", "p95", "p99", "first token, p50", "tokens in", "tokens out")
    columns = [
        TableColumn(dict(GROUPS)[query.group_by].lower(), numeric=False),
        *([TableColumn("provider", numeric=False)] if query.group_by == "model" else []),
        *(TableColumn(name) for name in (*head, "cost", "cost per call", "priced")),
    ]
    kept = lines if query.table else lines[:TOP]
    note = f"The {TOP} with most calls of {len(lines):,}; CSV has all." if len(lines) > TOP else ""
    return Table(
        "benchmarks",
        f"{len(lines):,} {dict(GROUPS)[query.group_by].lower()}{'' if len(lines) == 1 else 's'} {query.spoken}",
        columns,
        [_row(line, query) for line in kept],
        empty="No calls in this time: choose a longer period, or take a filter away.",
        note=note,
    )


def _row(line: BenchmarkSummary, query: BenchmarksQuery) -> list[Cell]:
    interval = line.success_rate_interval
    href = link(
        "/calls",
        **query.times,
        model=line.model_name,
        provider=line.provider,
        prompt_name=line.prompt_name,
        tenant=query.tenant,
    )
    return [
        text(name_of(line), None if line.day else href),
        *([text(line.provider)] if query.group_by == "model" else []),
        figure(figures.count, line.total_calls),
        figure(figures.percent, line.success_rate),
        Cell(
            "-" if interval is None else f"{interval.low:.1f} to {interval.high:.1f}",
            None if interval is None else f"{interval.low:.4f} to {interval.high:.4f}",
        ),
        *figures_in(
            figures.ms, line.p50_latency_ms, line.p95_latency_ms, line.p99_latency_ms, line.p50_time_to_first_token_ms
        ),
        *figures_in(figures.count, line.total_input_tokens, line.total_output_tokens),
        *figures_in(figures.usd, line.total_cost, line.avg_cost),
        figure(figures.share, line.cost_coverage),
    ]


def _bars(
    lines: tuple[BenchmarkSummary, ...],
    query: BenchmarksQuery,
    key: str,
    caption: str,
    value: Callable[[BenchmarkSummary], float | None],
    shown: Callable[[float | None], str],
) -> Table:
    """One lying bar for each line, all on the axis of the longest."""
    found = [(name_of(line), value(line)) for line in lines[:_BARS]]
    top = axis_end(max((amount or 0.0 for _, amount in found), default=0.0))
    rows = [
        (
            text(name),
            figure(shown, amount),
            Cell("", drawing=Markup(row_bar(Bar(name, amount), top, shown))),  # noqa: S704  `row_bar` escapes
        )
        for name, amount in found
    ]
    what = dict(GROUPS)[query.group_by].lower()
    bars = TableColumn(f"0 to {shown(top)}", numeric=False, drawn=True)
    return Table(key, caption, (TableColumn(what, numeric=False), TableColumn("figure"), bars), rows, narrow=True)


_BARS: Final = 20


def _first_token(line: BenchmarkSummary) -> float | None:
    return line.p95_time_to_first_token_ms


def _float(amount: object) -> float | None:
    return None if amount is None else float(str(amount))
