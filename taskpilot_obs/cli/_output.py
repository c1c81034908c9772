"""Where every command prints: safe text, tables, CSV, JSON, complaints, and progress on a terminal."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from taskpilot_obs._support.visible import csv_cell, printable
from taskpilot_obs.cli._text import escaped_json, printable_lines
from taskpilot_obs.exceptions import TaskpilotError

_UNLIMITED: Final = 10_000
"""Columns of a pipe: nothing is left out or wrapped there, because no terminal limits it."""


def console(*, stderr: bool = False) -> Console:
    """A console that reads no markup in what it prints; in a pipe it is as wide as its tables, or as COLUMNS asks."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal and not os.environ.get("COLUMNS"):
        made.width = _UNLIMITED
    return made


def show(*parts: RenderableType) -> None:
    """Print tables and texts of rich to standard output; lines in a pipe have no trailing spaces."""
    out = console()
    if out.is_terminal:
        out.print(*parts, sep="\n")
        return
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    print("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def say(message: object) -> None:
    """Print a sentence to standard output as it is: never wrapped, so that paths and commands can be copied."""
    print(printable_lines(message))


def complain(message: object) -> None:
    """Print what went wrong to standard error, in red on a terminal; an error of the library with its stable code."""
    if isinstance(message, TaskpilotError):
        message = f"{message} [{message.stable_code}]"
    console(stderr=True).print(printable_lines(message), style="red", soft_wrap=True)


def print_json(text: str) -> None:
    """Print JSON, with characters that a terminal would obey escaped."""
    print(escaped_json(text))


def print_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print comma-separated values: the unknown is empty, money has no exponent, and nothing is a formula."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([csv_cell(cell) for cell in row] for row in rows)


@contextmanager
def working(doing: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done and for how long; print nothing in a pipe.

    Args:
        doing: what the command does, such as `verifying`.

    Yields:
        A function that takes how far the work is, such as `2 of 7 logs`.
    """
    terminal = console(stderr=True)
    if not terminal.is_terminal or not sys.stderr.isatty():  # FORCE_COLOR makes a terminal of every pipe
        yield lambda _how_far: None
        return
    spinner = SpinnerColumn("line" if terminal.options.ascii_only else "dots")
    columns = (spinner, TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=terminal, transient=True) as progress:
        task = progress.add_task(printable(doing))
        yield lambda how_far: progress.update(task, description=printable(f"{doing}: {how_far}"))
