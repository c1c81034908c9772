"""`taskpilot-obs stats`: how LLM calls went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from taskpilot_obs.cli._output import print_csv, print_json, show
from taskpilot_obs.cli._store_options import (
    Agent,
    AsCsv,
    AsJson,
    Environment,
    From,
    Model,
    Period,
    Prompt,
    Provider,
    Service,
    StoreUrl,
    Tenant,
    To,
    User,
    Where,
    Workflow,
    asked_by,
    explained,
    one_format,
    period_of,
    required,
    say_incomplete,
)
from taskpilot_obs.cli._tables import Column, FittedTable, name_column, whole_column
from taskpilot_obs.figures import count, ms, percent, share, usd

if TYPE_CHECKING:
    from taskpilot_obs.stats import CallStats, Stats


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="stats")(stats)


def stats(  # noqa: PLR0913  a command line has as many options as it has
    *,
    store: StoreUrl = None,
    period: Period = "24h",
    start: From = None,
    end: To = None,
    tenant: Tenant = None,
    user: User = None,
    agent: Agent = None,
    workflow: Workflow = None,
    model: Model = None,
    provider: Provider = None,
    prompt: Prompt = None,
    service: Service = None,
    environment: Environment = None,
    where: Where = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print requests, success rate, tokens, cost and latency: of all calls, and by provider, model and agent."""
    one_format(as_json=as_json, as_csv=as_csv)
    with explained():
        from taskpilot_obs.stats import get_stats

        found = get_stats(
            period_of(period, start, end),
            store=required(store),
            **asked_by(
                where,
                tenant_id=tenant,
                user_id=user,
                agent=agent,
                workflow=workflow,
                model=model,
                provider=provider,
                prompt_name=prompt,
                service=service,
                environment=environment,
            ),
        )
    if as_json:
        print_json(found.model_dump_json(indent=2))
    elif as_csv:
        print_csv(("group", "name", *_FIGURES), ((group, name, *_values(part)) for group, name, part in _groups(found)))
    else:
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
    Column("requests"),
    Column("success"),
    Column("tokens in", rank=3),
    Column("tokens out", rank=3),
    Column("cost"),
    Column("priced", rank=2),
    Column("p50", rank=5),
    Column("p95", rank=1),
    Column("p99", rank=4),
)


def _show(found: Stats) -> None:
    period = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC"
    show(FittedTable(period, _COLUMNS, map(_row, _groups(found)), more="--csv"))
    if found.errors_by_type:
        failures = ((kind, count(calls)) for kind, calls in found.errors_by_type.items())
        show(FittedTable("\nfailures", (name_column("type"), Column("calls")), failures))
    say_incomplete(found.incomplete_before)


def _row(group: tuple[str, str, CallStats]) -> tuple[str, ...]:
    by, named, part = group
    return (
        by,
        named,
        count(part.requests),
        percent(part.success_rate),
        count(part.tokens.input),
        count(part.tokens.output),
        usd(part.cost_usd),
        share(part.cost_coverage),
        ms(part.latency.p50_ms),
        ms(part.latency.p95_ms),
        ms(part.latency.p99_ms),
    )
