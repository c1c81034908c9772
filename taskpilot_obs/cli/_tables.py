"""Tables that fit the terminal: names wrap, columns of less weight are left out, and no figure is ever cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from taskpilot_obs._support.visible import printable
from taskpilot_obs.cli._text import encodable

_GAP: Final = 2
"""Between two columns: a cell's padding, and the box's divider, which is a space."""
_NARROWEST_NAME: Final = 12
ESSENTIAL: Final = 0
"""The weight of a column that is never left out."""

Cell = object
"""Anything, made printable; or a `Text`, which carries a colour and is drawn as it is."""


ColumnKind = Literal["name", "figure", "whole"]
"""A name wraps, at any character if necessary. A figure with its unit stands to the right, and an ID, a time or a word
to the left; both stay whole."""


class Column(NamedTuple):
    """One column of a table."""

    title: str
    kind: ColumnKind = "figure"
    rank: int = ESSENTIAL
    """The columns of the highest rank are left out first where the terminal is too narrow."""
    least: int = _NARROWEST_NAME
    """How narrow a column of names may get."""


def name_column(title: str, rank: int = ESSENTIAL, least: int = _NARROWEST_NAME) -> Column:
    """A column of names or sentences, which may wrap."""
    return Column(title, "name", rank, least)


def figure_columns(ranks: Mapping[str, int]) -> tuple[Column, ...]:
    """Columns of figures, side by side: their titles, and the rank of each."""
    return tuple(Column(title, rank=rank) for title, rank in ranks.items())


def whole_column(title: str, rank: int = ESSENTIAL) -> Column:
    """A column of IDs, times or fixed words, which stay whole."""
    return Column(title, "whole", rank)


class FittedTable:
    """A table that chooses its columns when it is drawn, by the width that it is given.

    Args:
        title: stands above the table.
        columns: what its columns are.
        rows: one cell for each column; a cell may hold anything, as it is made printable.
        more: where the columns that are left out can be had, such as `--csv`.
    """

    def __init__(self, title: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], more: str = "") -> None:
        self._title = title
        self._columns = columns
        self._rows = [[_cell(cell) for cell in row] for row in rows]
        self._more = more
        self._widths = self._measured()

    def _measured(self) -> list[int]:
        return [
            max(cell_len(column.title), *(cell_len(row[number].plain) for row in self._rows), 0)
            for number, column in enumerate(self._columns)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        if options.ascii_only:
            for cell in chain.from_iterable(self._rows):
                cell.plain = encodable(cell.plain, options.encoding)
            self._widths = self._measured()
        shown = self._fitting(room)
        if self._needed(shown, self._least()) > room:
            yield from self._as_records(room)
            return
        if self._title:
            yield Text(self._title, style="bold")  # above the table, because rich wraps a title at the table's width
        yield self._table(shown, room)
        left_out = [column.title for number, column in enumerate(self._columns) if number not in shown]
        if left_out:
            more = f"; {self._more} has all columns" if self._more else ""
            yield Text(f"left out at this width: {', '.join(left_out)}{more}", style="dim")

    def _fitting(self, room: int) -> list[int]:
        """Numbers of the columns that are shown: those of the highest rank go first, the last of them before others."""
        shown = list(range(len(self._columns)))
        while self._needed(shown, self._least()) > room:
            least = max(shown, key=lambda number: (self._columns[number].rank, number))
            if self._columns[least].rank == ESSENTIAL:
                break
            shown.remove(least)
        return shown

    def _least(self) -> list[int]:
        return [
            min(width, max(column.least, cell_len(column.title))) if column.kind == "name" else width
            for column, width in zip(self._columns, self._widths, strict=True)
        ]

    @staticmethod
    def _needed(shown: Iterable[int], widths: Sequence[int]) -> int:
        return sum(widths[number] + _GAP for number in shown) - _GAP

    def _table(self, shown: Sequence[int], room: int) -> Table:
        made = Table(box=SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        widths = self._shared_out(shown, room)
        for number in shown:
            column = self._columns[number]
            made.add_column(
                column.title,
                justify="right" if column.kind == "figure" else "left",
                width=widths[number],
                no_wrap=column.kind != "name",
                overflow="fold",
            )
        for row in self._rows:
            made.add_row(*(row[number] for number in shown))
        return made

    def _shared_out(self, shown: Sequence[int], room: int) -> list[int]:
        """Widths of all columns: figures as they need, names from the room that remains, the narrow ones first."""
        widths = self._least()
        names = sorted((n for n in shown if self._columns[n].kind == "name"), key=self._widths.__getitem__)
        for done, number in enumerate(names):
            spare = room - self._needed(shown, widths)
            widths[number] = min(self._widths[number], widths[number] + spare // (len(names) - done))
        return widths

    def _as_records(self, room: int) -> Iterable[Text]:
        """For a terminal that is too narrow even for what is essential: each row as lines of `title: cell`."""
        if self._title:
            yield Text(self._title, style="bold")
        for row in self._rows:
            yield from self._record(row, room)
            yield Text("")

    def _record(self, row: Sequence[Text], room: int) -> Iterable[Text]:
        """As many cells on a line as fit; a cell is broken only where it alone is wider than a line."""
        line = Text(overflow="fold")
        for column, cell in zip(self._columns, row, strict=True):
            if not cell.plain.strip():
                continue
            entry = Text.assemble((f"{column.title}: ", "dim"), cell, overflow="fold")
            if line and line.cell_len + _GAP + entry.cell_len > room:
                yield line
                line = Text(overflow="fold")
            line = Text(" " * _GAP).join((line, entry)) if line else entry
            line.overflow = "fold"
        yield line


def _cell(given: Cell) -> Text:
    return given if isinstance(given, Text) else Text(printable(given))
