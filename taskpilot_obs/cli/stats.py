"""`taskpilot-obs stats`: how LLM calls went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskpilot_obs._support.figures import count, known_cost, ms, percent, share
from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._output import show
from taskpilot_obs.cli._tables import Column, FittedTable, figure_columns, name_column, whole_column

if TYPE_CHECKING:
    from taskpilot_obs.stats import CallStats, Stats


def stats(
    *,
    span: options.Span = options.OF_A_DAY,
    dimensions: options.Dimensions = options.ANYONE,
    prompt: options.Prompt = None,
    service: options.Service = None,
    environment: options.Environment = None,
    where: options.Where = None,
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print requests, success rate, tokens, cost and latency: of all calls, and by provider, model and agent."""
    with options.explained():
        from taskpilot_obs.stats import get_stats

        own = {"prompt_name": prompt, "service": service, "environment": environment}
        asked = options.asked_by(where, **dimensions.filters(), **own)
        found = get_stats(span.asked, store=options.required(span.store), **asked)
    lines = ((group, name, *_values(part)) for group, name, part in _groups(found))
    if not form.printed(found, ("group", "name", *_FIGURES), lines):
        _show(found)


_FIGURES = (
    "requests",
    "successes",
    "failures",
    "success_rate",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cost_coverage",
    "p50_ms",
    "p95_ms",
    "p99_ms",
)


def _values(part: CallStats) -> tuple[object, ...]:
    latency = part.latency
    return (
        part.requests,
        part.successes,
        part.failures,
        part.success_rate,
        part.tokens.input,
        part.tokens.output,
        part.cost_usd,
        part.cost_coverage,
        latency.p50_ms,
        latency.p95_ms,
        latency.p99_ms,
    )


def _groups(found: Stats) -> Iterator[tuple[str, str, CallStats]]:
    yield "all", "", found
    for group, parts in (("provider", found.by_provider), ("model", found.by_model), ("agent", found.by_agent)):
        for name, part in parts.items():
            yield group, name, part


_COLUMNS = (
    whole_column("by"),
    name_column("name"),
    *figure_columns(
        {
            "requests": 0,
            "success": 0,
            "tokens in": 3,
            "tokens out": 3,
            "cost": 0,
            "priced": 2,
            "p50": 5,
            "p95": 1,
            "p99": 4,
        }
    ),
)


def _show(found: Stats) -> None:
    period = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC"
    show(FittedTable(period, _COLUMNS, map(_row, _groups(found)), more="--csv"))
    if found.errors_by_type:
        failures = ((kind, count(calls)) for kind, calls in found.errors_by_type.items())
        show(FittedTable("\nfailures", (name_column("type"), Column("calls")), failures))
    options.say_incomplete(found.incomplete_before)


def _row(group: tuple[str, str, CallStats]) -> tuple[str, ...]:
    by, named, part = group
    return (
        by,
        named,
        count(part.requests),
        percent(part.success_rate),
        count(part.tokens.input),
        count(part.tokens.output),
        known_cost(part.cost_usd, part.cost_coverage),
        share(part.cost_coverage),
        ms(part.latency.p50_ms),
        ms(part.latency.p95_ms),
        ms(part.latency.p99_ms),
    )
