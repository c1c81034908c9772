"""What `taskpilot-obs bench` shows: the estimate before, bars while it runs, and the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from taskpilot_obs._support.figures import UNKNOWN, count, ms, share, usd
from taskpilot_obs._support.visible import printable
from taskpilot_obs.cli._tables import Column, FittedTable, name_column
from taskpilot_obs.compare.bench.documents import HEAD, cells, facts, troubles
from taskpilot_obs.compare.bench.runner import Reporter

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from taskpilot_obs.compare.bench.calls import BenchCall
    from taskpilot_obs.compare.bench.estimate import Estimate
    from taskpilot_obs.compare.bench.figures import ArmReport, BenchmarkReport
    from taskpilot_obs.compare.bench.plan import Planned
    from taskpilot_obs.compare.bench.pretend import Truth
    from taskpilot_obs.compare.bench.runner import Outcome

_RANKS = {"calls": 4, "p95": 1, "first token": 2, "per call": 3, "priced": 5}
_NAME_WIDTH = 20
"""The columns that a narrow terminal leaves out, the highest first."""


def estimate_table(estimates: Sequence[Estimate]) -> RenderableType:
    """Calls, tokens and cost of each arm, before anything is spent."""
    columns = (name_column("arm"), Column("calls"), Column("tokens in"), Column("tokens out"), Column("cost"))
    rows = [
        (each.arm, count(each.calls), count(each.input_tokens), count(each.output_tokens), usd(each.cost))
        for each in estimates
    ]
    known = [each.cost for each in estimates if each.cost is not None]
    whole = usd(sum(known, Decimal(0))) if known else UNKNOWN
    rows.append(("in all", count(sum(each.calls for each in estimates)), "", "", whole))
    return FittedTable("At most, without retries", columns, rows)


class Bars(Reporter):
    """A progress bar for each arm, with its errors and what it spent; nothing in a pipe.

    Args:
        terminal: where to draw.
        calls: what will be done.
    """

    def __init__(self, terminal: Console, calls: Sequence[Planned]) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn())
        self._progress = Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)
        totals = Counter(call.arm for call in calls)
        self._tasks: dict[str, TaskID] = {arm: self._progress.add_task(arm, total=n) for arm, n in totals.items()}
        self._errors: Counter[str] = Counter()
        self._spent: dict[str, Decimal] = dict.fromkeys(totals, Decimal(0))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def finished(self, outcome: Outcome) -> None:
        """Move the arm's bar."""
        arm = outcome.planned.arm
        self._errors[arm] += outcome.error is not None
        self._progress.update(self._tasks[arm], advance=1, description=self._line(arm))

    def saved(self, calls: Sequence[BenchCall]) -> None:
        """Add what the calls cost."""
        for call in calls:
            self._spent[call.arm] += call.cost_usd or 0
        for arm, task in self._tasks.items():
            self._progress.update(task, description=self._line(arm))

    def _line(self, arm: str) -> str:
        return f"{printable(arm)}  {self._errors[arm]} errors  {usd(self._spent[arm])}"


def report_view(report: BenchmarkReport) -> Iterator[RenderableType]:
    """The figures by arm, what is certain of them, and how they were measured."""
    columns = [_column(title) for title in HEAD]
    rows = [_row(name, arm) for name, arm in report.arms.items()]
    yield FittedTable(f"Benchmark {report.run_id}", columns, rows, more="report.html")
    for finding in report.findings:
        yield Text(printable(finding.sentence), style="bold")
    for trouble in troubles(report):
        yield Text(printable(trouble), style="yellow")
    yield Text("")
    for what, how in facts(report):
        yield Text.assemble((f"{printable(what)}: ", "dim"), printable(how))


def _column(title: str) -> Column:
    return name_column(title, least=_NAME_WIDTH) if title == "arm" else Column(title, rank=_RANKS.get(title, 0))


def _row(name: str, arm: ArmReport) -> list[str]:
    """The row of the documents, without the interval of success, which would not fit."""
    row = [*cells(name, arm)]
    row[HEAD.index("success")] = share(None if arm.success is None else arm.success.value)
    return row


def truths_view(report: BenchmarkReport) -> RenderableType:
    """What is built into the providers of the demo, beside what was found."""
    from taskpilot_obs.compare.bench.pretend import TRUTHS

    columns = (name_column("built in"), Column("correct"), Column("found"), Column("median"), Column("found"))
    rows = [_truth(truth, report.arms[truth.model]) for truth in TRUTHS if truth.model in report.arms]
    return FittedTable("\nWhat was built in, and what was found", columns, rows)


def _truth(truth: Truth, arm: ArmReport) -> tuple[str, ...]:
    correct, median = arm.correct, arm.request_latency_p50_interval
    built_in = truth.correct * (1 - truth.errors)
    return (
        truth.model,
        share(built_in),
        UNKNOWN if correct is None else f"{share(correct.low)} to {share(correct.high)}",
        ms(1_000 * truth.median_s),
        UNKNOWN if median is None else f"{ms(median.low)} to {ms(median.high)}",
    )
