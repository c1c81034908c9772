"""`taskpilot-obs stats`: how LLM calls went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from taskpilot_obs.cli._store_options import (
    Agent,
    AsCsv,
    AsJson,
    Model,
    Period,
    Prompt,
    Provider,
    StoreUrl,
    Tenant,
    User,
    Workflow,
    explained,
    one_format,
    print_csv,
    table,
)
from taskpilot_obs.figures import ms, percent, usd

if TYPE_CHECKING:
    from taskpilot_obs.stats import CallStats, Stats


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="stats")(stats)


def stats(  # noqa: PLR0913  a command line has as many options as it has
    *,
    store: StoreUrl = None,
    period: Period = "24h",
    tenant: Tenant = None,
    user: User = None,
    agent: Agent = None,
    workflow: Workflow = None,
    model: Model = None,
    provider: Provider = None,
    prompt: Prompt = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print requests, success rate, tokens, cost and latency, and the same by provider, model and agent."""
    one_format(as_json=as_json, as_csv=as_csv)
    with explained():
        from taskpilot_obs.stats import get_stats

        found = get_stats(
            period,
            store=store,
            tenant=tenant,
            user=user,
            agent=agent,
            workflow=workflow,
            model=model,
            provider=provider,
            prompt_name=prompt,
        )
    if as_json:
        print(found.model_dump_json(indent=2))
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


def _show(found: Stats) -> None:
    console = Console()
    head = ("", "requests", "success", "tokens in", "tokens out", "cost", "priced", "p50", "p95", "p99")
    lines = [(name or "all", *_readable(part)) for _, name, part in _groups(found)]
    console.print(table(f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC", head, lines))
    if found.errors_by_type:
        console.print(table("failures", ("type", "calls"), ((k, f"{n:,}") for k, n in found.errors_by_type.items())))
    if found.incomplete_before is not None:
        console.print(f"rows before {found.incomplete_before:%Y-%m-%d %H:%M} UTC were deleted and are not counted")


def _readable(part: CallStats) -> tuple[str, ...]:
    coverage = None if part.cost_coverage is None else 100 * part.cost_coverage
    return (
        f"{part.requests:,}",
        percent(part.success_rate),
        f"{part.tokens.input:,}",
        f"{part.tokens.output:,}",
        usd(part.cost_usd),
        percent(coverage),
        ms(part.latency.p50_ms),
        ms(part.latency.p95_ms),
        ms(part.latency.p99_ms),
    )
