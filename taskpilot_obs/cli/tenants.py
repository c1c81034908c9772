"""`taskpilot-obs tenants`: what each tenant used."""

from __future__ import annotations

import typer

from taskpilot_obs.cli._output import print_csv, print_json, show
from taskpilot_obs.cli._store_options import (
    AsCsv,
    AsJson,
    From,
    Limit,
    Period,
    StoreUrl,
    To,
    explained,
    one_format,
    period_of,
    required,
    say_incomplete,
)
from taskpilot_obs.cli._tables import Column, FittedTable, name_column
from taskpilot_obs.figures import count, ms, percent, usd

_COLUMNS = (
    name_column("tenant"),
    Column("requests"),
    Column("success"),
    Column("p95", rank=1),
    Column("cost"),
    Column("of all", rank=2),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="tenants")(tenants)


def tenants(
    *,
    store: StoreUrl = None,
    period: Period = "30d",
    start: From = None,
    end: To = None,
    limit: Limit = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the requests, tokens and cost of each tenant, highest cost first."""
    one_format(as_json=as_json, as_csv=as_csv)
    with explained():
        from taskpilot_obs.stats import get_tenants_report

        found = get_tenants_report(period_of(period, start, end), store=required(store), limit=limit)
    if as_json:
        print_json(found.model_dump_json(indent=2))
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
        rows = (
            (
                t.tenant,
                count(t.requests),
                percent(t.success_rate),
                ms(t.p95_ms),
                usd(t.cost_usd),
                percent(t.percent),
            )
            for t in found.tenants
        )
        title = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC, {usd(found.cost_usd)} in total"
        if len(found.tenants) < found.tenants_total:
            title += f"; the {len(found.tenants)} largest of {found.tenants_total:,}"
        show(FittedTable(title, _COLUMNS, rows, more="--csv"))
        say_incomplete(found.incomplete_before)
