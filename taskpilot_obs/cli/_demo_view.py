"""What the demo shows: while it runs, at its end, and as a picture."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from taskpilot_obs._support.figures import count, usd
from taskpilot_obs._support.visible import printable
from taskpilot_obs.audit.encoding import to_json
from taskpilot_obs.audit.query import Entry, tail
from taskpilot_obs.cli._signals_table import signals_view
from taskpilot_obs.cli._tables import FittedTable, figure_columns, name_column
from taskpilot_obs.cli._text import escaped_json
from taskpilot_obs.demo.spend import DemoSpend, Line
from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.semconv import Field

PICTURE_WIDTH: Final = 110
_RECORDS: Final = 3
_LOOK_BACK: Final = 2_000
_DIGEST: Final = re.compile(r'"([0-9a-f]{8})[0-9a-f]{56}"')
_WEB_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Frame(NamedTuple):
    """What is to be seen at one moment."""

    signals: GoldenSignals
    spend: DemoSpend
    progress: Progress


def new_progress() -> Progress:
    """The bar above the live table; it is drawn as part of a frame, never by itself."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=48),
        MofNCompleteColumn(),
        TextColumn("requests"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, auto_refresh=False)


def heading(description: str, url: str) -> RenderableType:
    """What runs, and where its metrics are."""
    return Group(Text(description, style="bold"), Text.assemble("/metrics is on ", (url, "cyan")))


def live_view(frame: Frame) -> RenderableType:
    """One frame of the live table."""
    overall = frame.signals.model_copy(update={"workflows": {}})  # there is but one workflow
    return Group(
        frame.progress,
        signals_view(overall),
        _spend_table(frame.spend),
    )


_SPEND: Final = (
    name_column("agent"),
    name_column("model"),
    *figure_columns({"calls": 0, "tokens in": 1, "tokens out": 1, "cost": 0, "unpriced": 2}),
)


def _spend_table(spend: DemoSpend) -> FittedTable:
    rows = (
        (
            agent,
            model,
            count(line.calls),
            count(line.input_tokens),
            count(line.output_tokens),
            _cost(line),
            count(line.unpriced),
        )
        for agent, model, line in spend.lines()
    )
    return FittedTable("\nLLM calls", _SPEND, rows)


def _cost(line: Line) -> Text:
    if line.unpriced == line.calls:
        return Text("no price", style="yellow")
    return Text(usd(line.cost))


def closing_view(audit_log: Path, program: str, *, failure: Exception | None = None) -> RenderableType:
    """Where the audit log is, three of its records, and what to do next; above them a failure that the user can fix."""
    records = _telling(tail(audit_log, _LOOK_BACK))
    request_id = records[-1].get(Field.REQUEST_ID, "") if records else ""
    return Group(
        *(
            []
            if failure is None
            else [Text(f"\nThe last failure: {type(failure).__name__}: {printable(failure)}", style="red")]
        ),
        Text.assemble("\nThe audit log is ", (str(audit_log), "cyan"), ". Three records of it, their hashes cut:"),
        *(
            Padding(_Folded(escaped_json(_DIGEST.sub(r'"\1…"', to_json(record)))), (0, 0, 0, 2), expand=False)
            for record in records
        ),
        Text("\nWhat to do next:"),
        *_command("is its chain of records whole?", f"{program} audit verify {audit_log}"),
        *_command("that request, in order", f"{program} audit query {audit_log} --request-id {request_id}"),
        *_command("keep the service up, with pages in the browser", f"{program} demo --serve --port 9464"),
        *_command("meanwhile, in another terminal: the five signals from /metrics", f"{program} signals --over 10s"),
        *_command("rules, dashboards and server configuration", f"{program} export-assets observability-assets"),
    )


def _telling(records: Sequence[Entry]) -> Sequence[Entry]:
    """Of the last request that was refused, the last record of each kind; where none was, the last three of all."""
    refused = [record[Field.REQUEST_ID] for record in records if record.get(Field.STATUS) == "blocked"]
    own = [record for record in records if refused and record.get(Field.REQUEST_ID) == refused[-1]]
    last_of_kind = {record[Field.LOG_TYPE]: record for record in own}
    return [record for record in own if record in last_of_kind.values()] or records[-_RECORDS:]


class _Folded:
    """One long line, broken wherever the width ends, not at spaces."""

    def __init__(self, line: str) -> None:
        self._line = line

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        width = min(len(self._line), options.max_width)
        return Measurement(width, width)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        for start in range(0, len(self._line), options.max_width):
            yield Text(self._line[start : start + options.max_width], style="dim")


def _command(purpose: str, command: str) -> tuple[Text, Text]:
    """On one line however long it is, so that it can be copied."""
    return Text(f"  # {purpose}", style="dim"), Text(f"  {command}", style="green", no_wrap=True, overflow="ignore")


def picture(*parts: RenderableType, title: str) -> str:
    """An SVG of what a terminal of a fixed width shows. It loads no font from anywhere."""
    console = Console(record=True, width=PICTURE_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(*parts)
    return _WEB_FONTS.sub("", console.export_svg(title=title))
