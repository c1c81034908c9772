"""`taskpilot-obs export`: calls of the store as a file for spreadsheets, notebooks and FinOps tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._output import say, working

Output = Annotated[Path, typer.Argument(help="The file to write. A file that is there is replaced.")]
AsFormat = Annotated[
    Literal["csv", "parquet", "focus"] | None,
    typer.Option("--format", help="csv or parquet: a line a call; focus: costs by day.  [default: as FILE ends]"),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="export")(export)


def export(
    output: Output,
    *,
    format: AsFormat = None,  # noqa: A002  the name of the option
    store: options.StoreUrl = None,
    period: options.Period = "30d",
    start: options.From = None,
    end: options.To = None,
    tenant: options.Tenant = None,
    where: options.Where = None,
) -> None:
    """Write LLM calls as CSV or Parquet, or their costs in the columns of FOCUS, the FinOps specification."""
    with options.explained():
        from taskpilot_obs.stats import export_calls

        span, asked = options.period_of(period, start, end), options.asked_by(where, tenant_id=tenant)
        try:
            with working("writing the calls"):
                written = export_calls(output, span, format=format, store=options.required(store), **asked)
        except OSError as error:
            raise typer.BadParameter(f"{output} cannot be written: {error.strerror}") from error
    say(f"{written:,} lines: {output}")
