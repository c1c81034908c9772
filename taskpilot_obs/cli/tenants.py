"""`taskpilot-obs tenants`: what every tenant used."""

from __future__ import annotations

import typer
from rich.console import Console

from taskpilot_obs.cli._store_options import AsCsv, AsJson, Period, StoreUrl, explained, one_format, print_csv, table
from taskpilot_obs.figures import ms, percent, usd


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="tenants")(tenants)


def tenants(*, store: StoreUrl = None, period: Period = "30d", as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """Print every tenant's requests, tokens and cost, in falling order of cost."""
    one_format(as_json=as_json, as_csv=as_csv)
    with explained():
        from taskpilot_obs.stats import get_tenants_report

        found = get_tenants_report(period, store=store)
    if as_json:
        print(found.model_dump_json(indent=2))
    elif as_csv:
        head = ("tenant", "requests", "success_rate", "input_tokens", "output_tokens", "cost_usd", "percent", "p95_ms")
        print_csv(
            head,
            (
                (t.tenant, t.requests, t.success_rate, t.tokens.input, t.tokens.output, t.cost_usd, t.percent, t.p95_ms)
                for t in found.tenants
            ),
        )
    else:
        lines = (
            (t.tenant, f"{t.requests:,}", percent(t.success_rate), ms(t.p95_ms), usd(t.cost_usd), percent(t.percent))
            for t in found.tenants
        )
        title = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC, {usd(found.cost_usd)} in all"
        Console().print(table(title, ("tenant", "requests", "success", "p95", "cost", "of all"), lines))
