"""The blocks of pages: tables, charts, signals and notices. A page is built once, and shown as HTML, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeVar

from markupsafe import Markup

from taskpilot_obs._support.charts import Chart, bars
from taskpilot_obs._support.visible import csv_cell
from taskpilot_obs.server.answers import answer

Raw = str | int | float | Decimal | datetime | bool | None
Figure = TypeVar("Figure", bound=float | Decimal | None)
_LONG_NAME: Final = 60


class Cell(NamedTuple):
    """One cell: how it reads, and what it is."""

    text: str
    raw: Raw = None
    href: str | None = None
    moment: datetime | None = None
    tone: str = ""
    """`ok`, `warn` or `bad`; the text says it too."""
    drawing: Markup | None = None
    depth: int = 0
    prose: bool = False
    """A sentence, which is never shortened."""

    @property
    def short(self) -> str:
        """The text, shortened in the middle if it is too long for a column."""
        if self.prose or len(self.text) <= _LONG_NAME:
            return self.text
        return f"{self.text[: _LONG_NAME // 2]}…{self.text[-_LONG_NAME // 3 :]}"


class TableColumn(NamedTuple):
    """One column."""

    name: str
    numeric: bool = True
    drawn: bool = False
    """Holds drawings only, and has no place in CSV or JSON."""


class Table(NamedTuple):
    """A table with a caption."""

    key: str
    """Names it in `.csv?table=…`."""
    caption: str
    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[Cell]]
    empty: str = "Nothing in this time."
    note: str = ""
    older: str | None = None
    """Where the rows that follow are."""
    narrow: bool = False
    """Stands beside others where there is room."""
    kind: str = "table"


class Drawing(NamedTuple):
    """A chart, and its figures as a table."""

    key: str
    svg: Markup
    table: Table
    kind: str = "drawing"


class Signal(NamedTuple):
    """One golden signal."""

    name: str
    figure: str
    status: str
    evidence: str
    trend: str


class Signals(NamedTuple):
    """The five golden signals."""

    caption: str
    overall: str
    items: Sequence[Signal]
    notes: Sequence[str] = ()
    kind: str = "signals"


class Heading(NamedTuple):
    """Begins a part of a page."""

    text: str
    kind: str = "heading"


class Notice(NamedTuple):
    """A sentence that asks for attention, or says that there is nothing to see and what to do."""

    tone: str
    text: str
    href: str | None = None
    code: str = ""
    kind: str = "notice"


class FactList(NamedTuple):
    """Names and figures."""

    caption: str
    items: Sequence[tuple[str, Cell]]
    kind: str = "facts"


class FeedbackForm(NamedTuple):
    """Buttons that say whether the answer to a request was right."""

    request_id: str
    kind: str = "feedback"


Block = Table | Drawing | Signals | Heading | Notice | FactList | FeedbackForm


class FormField(NamedTuple):
    """One filter of a page."""

    name: str
    label: str
    value: str
    options: Sequence[tuple[str, str]] = ()
    """Values and how they read; none for a text."""
    kind: str = "text"
    """`date` for a day of the calendar."""


class Page(NamedTuple):
    """All that a page shows."""

    title: str
    lead: str
    blocks: Sequence[Block]
    fields: Sequence[FormField] = ()
    rest: str | None = None
    """Where programs ask the same question."""


def text(value: object, href: str | None = None) -> Cell:
    """A name; `-` where it is unknown."""
    return Cell("-" if value is None else str(value), None if value is None else str(value), href)


def figure(shown: Callable[[Figure], str], value: Figure, *, tone: str = "") -> Cell:
    """A figure.

    Args:
        shown: how figures of its unit read.
        value: the figure.
        tone: as of a cell.
    """
    return Cell(shown(value), value, tone=tone)


def figures_in(shown: Callable[[Figure], str], *values: Figure) -> list[Cell]:
    """Figures of one unit, side by side."""
    return [figure(shown, value) for value in values]


def moment(value: datetime | None) -> Cell:
    """A time; pages show it in the reader's zone."""
    if value is None:
        return Cell("-")
    return Cell(f"{value:%Y-%m-%d %H:%M:%S} UTC", value, moment=value)


def drawn(chart: Chart) -> Drawing:
    """A chart with its figures as a table."""
    key = "".join(letter if letter.isalnum() else "-" for letter in chart.title.lower())
    head = (TableColumn("from", numeric=False), *(TableColumn(series.name) for series in chart.series))
    rows = []
    for place, label in enumerate(chart.labels):
        when = moment(chart.moments[place]) if chart.moments else text(label)
        values = (series.values[place] for series in chart.series)
        rows.append(
            (when, *(Cell("-" if value is None else chart.shown(value), value) for value in values)),
        )
    return Drawing(key, Markup(bars(chart)), Table(key, chart.title, head, rows))  # noqa: S704  `bars` escapes every text


def tables(blocks: Iterable[Block]) -> dict[str, Table]:
    """Every table of a page by its key, those of charts too."""
    found: dict[str, Table] = {}
    for block in blocks:
        if isinstance(block, Table):
            found[block.key] = block
        elif isinstance(block, Drawing):
            found[block.key] = block.table
    return found


def as_csv(table: Table) -> str:
    """Comma-separated values that no spreadsheet takes for a formula; unknown is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    kept = [place for place, column in enumerate(table.columns) if not column.drawn]
    writer.writerow([csv_cell(table.columns[place].name) for place in kept])
    for row in table.rows:
        writer.writerow([_csv_cell(row[place].raw) for place in kept])
    return out.getvalue()


def _csv_cell(raw: Raw) -> str:
    return csv_cell(raw) if raw is None or isinstance(raw, str) else str(answer(raw))


def as_json(page: Page) -> dict[str, Any]:
    """A page's tables as JSON."""
    return {
        "title": page.title,
        "tables": {
            key: {
                "caption": table.caption,
                "rows": [
                    {
                        column.name: answer(cell.raw)
                        for column, cell in zip(table.columns, row, strict=True)
                        if not column.drawn
                    }
                    for row in table.rows
                ],
            }
            for key, table in tables(page.blocks).items()
        },
    }
