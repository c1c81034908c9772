"""`taskpilot-obs budgets`: what each budget has spent and left, when it resets, and what it will have spent by then."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpilot_obs._support.figures import count, percent, usd
from taskpilot_obs.cli._output import print_csv, print_json, show
from taskpilot_obs.cli._store_options import TABLE, OutputFormat, StoreUrl, explained
from taskpilot_obs.cli._tables import FittedTable, figure_columns, name_column, whole_column

if TYPE_CHECKING:
    from decimal import Decimal

    from taskpilot_obs.budgets import BudgetStatus


def budgets(
    *,
    file: Annotated[
        list[Path],
        typer.Option(
            "--file",
            "-f",
            envvar="TASKPILOT_OBS_BUDGETS",
            help="TOML or YAML file of budgets; may be given more than once.",
        ),
    ],
    store: StoreUrl = None,
    form: OutputFormat = TABLE,
) -> None:
    """Print the state of budgets in the telemetry store: spent, assumed, left, reset, projection."""
    with explained():
        from taskpilot_obs.budgets import budget_status, load_budgets

        found = budget_status([budget for path in file for budget in load_budgets(path)], store=store)
    if form.as_json:
        print_json(json.dumps([_plain(status) for status in found], indent=2))
    elif form.as_csv:
        lines = [_plain(status) for status in found]
        print_csv(list(lines[0]) if lines else (), [list(line.values()) for line in lines])
    else:
        show(FittedTable(f"{len(found)} budgets", _COLUMNS, map(_row, found), more="--csv"))


def _plain(status: BudgetStatus) -> dict[str, object]:
    """Money is text, so that it stays exact."""
    return {
        name: value if value is None or isinstance(value, int | float | str) else _text(value)
        for name, value in status._asdict().items()
    }


def _text(value: Decimal | datetime) -> str:
    return value.isoformat() if isinstance(value, datetime) else f"{value:f}"


_COLUMNS = (
    name_column("budget"),
    whole_column("period", rank=4),
    whole_column("action", rank=2),
    *figure_columns({"limit": 0, "used": 0, "of limit": 0, "assumed": 6, "reserved": 3, "left": 1, "projected": 5}),
    whole_column("resets at", rank=4),
)


def _row(status: BudgetStatus) -> tuple[str, ...]:
    def shown(amount: Decimal | None) -> str:
        if amount is None:
            return "-"
        return usd(amount) if status.unit == "usd" else f"{count(float(amount))} {status.unit}"

    whose = f"{status.budget} {status.scope_key}" if status.scope_key else status.budget
    return (
        whose,
        status.period,
        status.action,
        shown(status.limit),
        shown(status.spent),
        percent(100 * status.used_ratio),
        shown(status.assumed),
        shown(status.reserved),
        shown(status.left),
        shown(status.projected),
        "never" if status.resets_at is None else f"{status.resets_at:%Y-%m-%d %H:%M} UTC",
    )
