"""`taskpilot-obs costs`: where the money goes, once or live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from taskpilot_obs._support.figures import count, known_cost, percent, share, usd
from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._output import console, say, show
from taskpilot_obs.cli._tables import Column, FittedTable, figure_columns, name_column

if TYPE_CHECKING:
    from taskpilot_obs.stats import CostBreakdown, CostRate, CostShare, CostSummary


def costs(
    *,
    span: options.Span = options.OF_A_MONTH,
    narrowed: options.Narrowed = options.EVERYTHING,
    watch: Annotated[
        float | None,
        typer.Option(min=0.1, help="Refresh every this many seconds: the rate and its projections."),
    ] = None,
    times: Annotated[int | None, typer.Option(min=1, help="With --watch: stop after this many refreshes.")] = None,
    window: Annotated[str, typer.Option(help="With --watch: the period that the rate is measured over.")] = "15m",
    timezone: Annotated[
        str, typer.Option(help="With --watch: the time zone of day and month, such as Europe/Berlin.")
    ] = "UTC",
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print where the money went, by provider, model, agent and tenant; with --watch, where it goes now."""
    if watch is not None and (form != options.TABLE or narrowed.where):
        raise typer.BadParameter("--watch draws on the terminal; leave out --json, --csv and --where")
    with options.explained():
        if watch is not None:
            store = options.required(span.store)
            _watch(watch, times, store=store, tenant=narrowed.tenant, window=window, timezone=timezone)
            return
        from taskpilot_obs.stats import get_cost_breakdown

        found = get_cost_breakdown(span.asked, store=options.required(span.store), **narrowed.filters())
    head = ("group", "name", "requests", "cost_usd", "percent", "cost_per_request_usd")
    if not form.printed(found, head, _lines(found)):
        _show(found)


def _groups(found: CostBreakdown) -> Iterator[tuple[str, dict[str, CostShare]]]:
    for name in ("provider", "model", "agent", "tenant"):
        yield name, getattr(found, f"by_{name}")


def _lines(found: CostBreakdown) -> Iterator[tuple[object, ...]]:
    yield _line("all", "", found)
    for group, shares in _groups(found):
        for name, part in shares.items():
            yield _line(group, name, part)


def _line(group: str, name: str, part: CostShare) -> tuple[object, ...]:
    return group, name, part.requests, part.cost_usd, part.percent, part.cost_per_request_usd


def _show(found: CostBreakdown) -> None:
    cost, coverage = known_cost(found.cost_usd, found.cost_coverage), share(found.cost_coverage)
    say(f"{cost} in {count(found.requests)} requests, {coverage} of them with a known price")
    for group, shares in _groups(found):
        say("")
        show(_shares(f"by {group}", shares))
    options.say_incomplete(found.incomplete_before)


def _shares(title: str, shares: dict[str, CostShare]) -> RenderableType:
    columns = (
        name_column(title),
        *figure_columns({"requests": 0, "cost": 0, "of all": 1, "per request": 2}),
    )
    rows = (
        (
            named,
            count(part.requests),
            known_cost(part.cost_usd, part.cost_coverage),
            percent(part.percent),
            usd(part.cost_per_request_usd),
        )
        for named, part in shares.items()
    )
    return FittedTable("", columns, rows, more="--csv")


def _watch(
    every_s: float, times: int | None, *, store: str | None, tenant: str | None, window: str, timezone: str
) -> None:
    from taskpilot_obs.stats import get_cost_rate, get_cost_summary
    from taskpilot_obs.store.access import opened

    looked = 0
    with opened(store) as opened_store, Live(console=console(), auto_refresh=False) as live:
        while True:
            rate = get_cost_rate(window, store=opened_store, tenant_id=tenant)
            day = get_cost_summary("day", timezone, store=opened_store, tenant_id=tenant)
            month = get_cost_summary("month", timezone, store=opened_store, tenant_id=tenant)
            live.update(_monitor(rate, day, month), refresh=True)
            looked += 1
            if looked == times:
                return
            time.sleep(every_s)


def _monitor(rate: CostRate, day: CostSummary, month: CostSummary) -> RenderableType:
    spent = FittedTable(
        f"{rate.end:%Y-%m-%d %H:%M:%S} UTC",
        (name_column("period"), Column("so far"), Column("at this period's pace"), Column("at the present rate")),
        (
            ("today", usd(day.cost_usd), usd(day.projected_cost_usd), usd(rate.per_day_usd)),
            ("this month", usd(month.cost_usd), usd(month.projected_cost_usd), usd(rate.per_month_usd)),
        ),
    )
    return Group(spent, _shares("now, by provider", dict(rate.by_provider)))
