"""`taskpilot-obs report`: one file with plots and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs.cli._output import say, working
from taskpilot_obs.cli._store_options import Span, explained

_OF_A_WEEK = Span(period="7d")


def report(
    output: Annotated[Path, typer.Argument(help="The file to write: it ends in .html or .md.")],
    *,
    span: Span = _OF_A_WEEK,
) -> None:
    """Write a report on spend, latency, errors, top models, agents and tenants."""
    with explained():
        from taskpilot_obs.stats import write_report

        try:
            with working("writing the report"):
                written = write_report(output, span.asked, store=span.store)
        except OSError as error:
            raise typer.BadParameter(f"{output} cannot be written: {error.strerror}") from error
    say(written)
