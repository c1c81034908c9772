"""`taskpilot-obs tenants` and `users`: what each of them used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from taskpilot_obs._support.figures import count, known_cost, known_total, ms, percent
from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._option_groups import grouped
from taskpilot_obs.cli._output import show
from taskpilot_obs.cli._tables import FittedTable, figure_columns, name_column

if TYPE_CHECKING:
    from taskpilot_obs.stats import TenantsReport, TenantUsage, UsersReport, UserUsage

_COLUMNS = (*figure_columns({"requests": 0, "success": 0, "p95": 1, "cost": 0, "of all": 2}),)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(name="tenants")(grouped(tenants))
    app.command(name="users")(grouped(users))


def tenants(
    *,
    span: options.Span = options.OF_A_MONTH,
    limit: options.Limit = None,
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print the requests, tokens and cost of each tenant, highest cost first."""
    with options.explained():
        from taskpilot_obs.stats import get_tenants_report

        found = get_tenants_report(span.asked, store=options.required(span.store), limit=limit)
    lines = [(line.tenant, line) for line in found.tenants]
    _print(found, "tenant", lines, found.tenants_total, form)


def users(
    *,
    span: options.Span = options.OF_A_MONTH,
    narrowed: options.Narrowed = options.EVERYTHING,
    limit: options.Limit = None,
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print the requests, tokens and cost of each user, highest cost first."""
    with options.explained():
        from taskpilot_obs.stats import get_users_report

        asked = narrowed.filters()
        found = get_users_report(span.asked, store=options.required(span.store), limit=limit, **asked)
    lines = [(line.user, line) for line in found.users]
    _print(found, "user", lines, found.users_total, form)


_Lines = Sequence[tuple[str, "TenantUsage | UserUsage"]]


def _print(
    found: TenantsReport | UsersReport, what: str, lines: _Lines, total: int, form: options.OutputFormat
) -> None:
    head = (what, "requests", "success_rate", "input_tokens", "output_tokens", "cost_usd", "percent", "p95_ms")
    if form.printed(found, head, ((name, *_values(line)) for name, line in lines)):
        return
    total_cost = known_total(found.cost_usd, (line.cost_coverage for _, line in lines))
    title = f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC, {total_cost} in total"
    if len(lines) < total:
        title += f"; the {len(lines)} largest of {total:,}"
    show(FittedTable(title, (name_column(what), *_COLUMNS), (_row(name, line) for name, line in lines), more="--csv"))
    options.say_incomplete(found.incomplete_before)


def _values(line: TenantUsage | UserUsage) -> tuple[object, ...]:
    tokens = line.tokens
    return line.requests, line.success_rate, tokens.input, tokens.output, line.cost_usd, line.percent, line.p95_ms


def _row(name: str, line: TenantUsage | UserUsage) -> tuple[str, ...]:
    return (
        name,
        count(line.requests),
        percent(line.success_rate),
        ms(line.p95_ms),
        known_cost(line.cost_usd, line.cost_coverage),
        percent(line.percent),
    )
