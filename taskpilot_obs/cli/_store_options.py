"""What the commands on a telemetry store share: options, errors, and figures as people read them."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError, StoreError

CANNOT_READ: Final = 4

StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="TASKPILOT_OBS_STORE",
        help="URL of the store: sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE.",
    ),
]
Period = Annotated[str, typer.Option("--period", help="How far back to look: 1h, 24h, 7d, 30d.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Calls of this tenant alone.")]
User = Annotated[str | None, typer.Option("--user", help="Calls of this user alone.")]
Agent = Annotated[str | None, typer.Option("--agent", help="Calls of this agent alone.")]
Workflow = Annotated[str | None, typer.Option("--workflow", help="Calls of this workflow alone.")]
Model = Annotated[str | None, typer.Option("--model", help="Calls to this model alone.")]
Provider = Annotated[str | None, typer.Option("--provider", help="Calls to this provider alone.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="Calls with this prompt_name alone.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; money is text, so that it stays exact.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")]


@contextmanager
def explained() -> Iterator[None]:
    """End with 2 where the usage is wrong or an extra is missing, with 4 where the store cannot be used."""
    try:
        yield
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    except MissingExtraError as error:
        _complain(error)
        raise typer.Exit(2) from error
    except StoreError as error:
        _complain(error)
        raise typer.Exit(CANNOT_READ) from error


def _complain(error: Exception) -> None:
    Console(stderr=True).print(str(error), style="red", markup=False, highlight=False)


def one_format(*, as_json: bool, as_csv: bool) -> None:
    """Refuse two formats at once."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other; give one")


def print_csv(head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Comma-separated values to standard output; what is unknown is empty, and money has no exponent."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(cell) for cell in line] for line in lines)


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else value


def table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    """A table for a terminal: the first column is a name, the others are figures. Names are shown as they are."""
    made = Table(title=title, title_justify="left")
    for number, column in enumerate(head):
        made.add_column(column, justify="left" if number == 0 else "right")
    for line in lines:
        made.add_row(*(cell.replace("[", "\\[") for cell in line))
    return made
