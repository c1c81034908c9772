"""`/tenants`: what each tenant used."""

from __future__ import annotations

from typing import Final

from taskpilot_obs._support import figures
from taskpilot_obs.server.blocks import Cell, Page, Table, TableColumn, figure, figures_in, text
from taskpilot_obs.server.pages.query import TimedQuery, link, time_fields
from taskpilot_obs.server.params import PeriodText
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats import TenantUsage

TOP: Final = 100


class TenantsPageQuery(TimedQuery):
    """Which stretch of time."""

    period: PeriodText = "30d"


def build(ask: Questions, query: TenantsPageQuery) -> Page:
    """One line for each tenant, in falling order of cost."""
    report = ask.tenants(query.over(ask.now))
    head = ("tenant", "cost", "share", "calls", "success", "p95", "tokens in", "tokens out", "priced")
    kept = report.tenants if query.table else report.tenants[:TOP]
    note = f"The {TOP} dearest of {len(report.tenants):,}; CSV has all." if len(report.tenants) > TOP else ""
    cost = figures.known_total(report.cost_usd, (line.cost_coverage for line in report.tenants))
    table = Table(
        "tenants",
        f"{len(report.tenants):,} tenant{'' if len(report.tenants) == 1 else 's'}, {cost}",
        [TableColumn(name, numeric=place > 0) for place, name in enumerate(head)],
        [_row(line, query) for line in kept],
        empty="No calls in this time: choose a longer period.",
        note=note,
    )
    return Page(
        "Tenants",
        "What each tenant used. __none__ stands for calls without a tenant.",
        [table],
        time_fields(query),
        link("/v1/tenants", **query.times),
    )


def _row(line: TenantUsage, query: TenantsPageQuery) -> list[Cell]:
    unknown = line.cost_coverage == 0
    cost, percent = (None, None) if unknown else (line.cost_usd, line.percent)
    return [
        text(line.tenant, link("/calls", **query.times, tenant=line.tenant)),
        figure(figures.usd, cost),
        figure(figures.percent, percent),
        figure(figures.count, line.requests),
        figure(figures.percent, line.success_rate),
        figure(figures.ms, line.p95_ms),
        *figures_in(figures.count, line.tokens.input, line.tokens.output),
        figure(figures.share, line.cost_coverage),
    ]
