"""`taskpilot-obs export`: calls of the store as a file for spreadsheets, notebooks and FinOps tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._output import say, working


def export(
    output: Annotated[Path, typer.Argument(help="The file to write. A file that is there is replaced.")],
    *,
    format: Annotated[  # noqa: A002  the name of the option
        Literal["csv", "parquet", "focus"] | None,
        typer.Option(help="csv or parquet: a line a call; focus: costs by day.  [default: as FILE ends]"),
    ] = None,
    span: options.Span = options.OF_A_MONTH,
    narrowed: options.Narrowed = options.EVERYTHING,
) -> None:
    """Write LLM calls as CSV or Parquet, or their costs in the columns of FOCUS, the FinOps specification."""
    with options.explained():
        from taskpilot_obs.stats import export_calls

        asked = narrowed.filters()
        try:
            with working("writing the calls"):
                written = export_calls(output, span.asked, format=format, store=options.required(span.store), **asked)
        except OSError as error:
            raise typer.BadParameter(f"{output} cannot be written: {error.strerror}") from error
    say(f"{written:,} lines: {output}")
