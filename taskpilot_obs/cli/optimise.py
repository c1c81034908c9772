"""`taskpilot-obs optimise`: where money could be saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpilot_obs._support.figures import UNKNOWN, usd
from taskpilot_obs.cli._option_groups import grouped
from taskpilot_obs.cli._output import say, show
from taskpilot_obs.cli._store_options import TABLE, Limit, OutputFormat, Period, StoreUrl, Tenant, explained
from taskpilot_obs.cli._tables import Column, FittedTable, name_column

if TYPE_CHECKING:
    from taskpilot_obs.compare.optimising import Saving, Savings

_FIELDS = (
    "kind",
    "subject",
    "estimate_usd",
    "low_usd",
    "high_usd",
    "evidence",
    "uncertainty",
    "action",
)


def register(app: typer.Typer) -> None:
    """Add the command, in both spellings."""
    app.command(name="optimise")(grouped(optimise))
    app.command(name="optimize", hidden=True)(grouped(optimise))


def optimise(
    *,
    store: StoreUrl = None,
    period: Period = "30d",
    tenant: Tenant = None,
    prices: Annotated[list[Path] | None, typer.Option(help="A file of your own prices.")] = None,
    limit: Limit = None,
    form: OutputFormat = TABLE,
) -> None:
    """Print where money could be saved, the largest estimate first, each with its evidence and its uncertainty."""
    with explained():
        from taskpilot_obs.compare import optimise as ask
        from taskpilot_obs.pricing import PriceTable

        found = ask(period, prices=PriceTable.load(prices or ()), store=store, tenant_id=tenant)
    shown = found.savings[:limit]
    lines = ([getattr(saving, name) for name in _FIELDS] for saving in shown)
    if not form.printed(found.model_copy(update={"savings": shown}), _FIELDS, lines):
        _show(found, shown)


def _show(found: Savings, shown: tuple[Saving, ...]) -> None:
    if not shown:
        say(f"nothing found between {found.start:%Y-%m-%d} and {found.end:%Y-%m-%d}")
        return
    columns = (name_column("where"), name_column("what"), Column("saves"), Column("between"))
    rows = ((saving.kind, saving.subject, usd(saving.estimate_usd), _between(saving)) for saving in shown)
    show(FittedTable("Where money could be saved, in a period like this", columns, rows))
    for saving in shown:
        say(f"\n{saving.kind}, {saving.subject}")
        say(f"  seen: {saving.evidence}")
        say(f"  not known: {saving.uncertainty}")
        say(f"  do: {saving.action}")


def _between(saving: Saving) -> str:
    if saving.low_usd is None or saving.high_usd is None:
        return UNKNOWN
    return f"{usd(saving.low_usd)} to {usd(saving.high_usd)}"
