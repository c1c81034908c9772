"""Golden signals as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from taskpilot_obs._support.figures import UNKNOWN, count, ms, percent, usd
from taskpilot_obs._support.visible import printable
from taskpilot_obs.cli._tables import Cell, Column, FittedTable, figure_columns, name_column, whole_column
from taskpilot_obs.golden_signals.model import GoldenSignals, Interval, SignalStatus
from taskpilot_obs.golden_signals.wording import NOTHING, WORDINGS, evidence_text, figure_text, headline

COLOURS: Final = {
    SignalStatus.HEALTHY: "green",
    SignalStatus.WARNING: "yellow",
    SignalStatus.CRITICAL: "red",
    SignalStatus.INSUFFICIENT_DATA: "dim",
}
_FIVE: Final = (
    name_column("signal"),
    Column("figure"),
    whole_column("95 % interval", rank=1),
    name_column("evidence"),
    whole_column("status"),
)
_WORKFLOWS: Final = (
    name_column("workflow"),
    *figure_columns({"counted runs": 0, "all runs": 2, "success rate": 0, "p95 latency": 0, "cost per success": 1}),
    whole_column("status"),
)


_JOBS: Final = (
    name_column("job"),
    Column("runs"),
    *(Column(wording.label) for wording in WORDINGS),
    Column("history, minutes", rank=2),
    whole_column("status"),
)


def jobs_view(every: Mapping[str, GoldenSignals]) -> RenderableType:
    """One line for each job: the five figures, how much history they rest on, and how they are."""
    rows = (
        (
            job,
            count(signals.runs.total),
            *(figure_text(wording, getattr(signals, wording.field)) for wording in WORDINGS),
            "" if signals.history_s is None else count(signals.history_s / 60),
            _status(signals.status),
        )
        for job, signals in every.items()
    )
    return FittedTable("Golden signals by job", _JOBS, rows, more="--json")


def signals_view(signals: GoldenSignals) -> RenderableType:
    """The five signals, the workflows behind them and the notes."""
    parts: list[RenderableType] = [_five(signals)]
    if signals.workflows and signals.workflow is None:
        parts += [Text(""), _by_workflow(signals)]
    parts += [Text(f"note: {printable(note)}", style="dim") for note in signals.notes]
    return Group(*parts)


def _five(signals: GoldenSignals) -> FittedTable:
    rows: list[tuple[Cell, ...]] = []
    for wording in WORDINGS:
        behind = signals.evidence[wording.field]
        rows.append(
            (
                wording.label,
                figure_text(wording, getattr(signals, wording.field)),
                _interval(behind.interval),
                evidence_text(
                    wording, behind.numerator, behind.denominator, is_interpolated=signals.p95_is_interpolated
                ),
                _status(behind.status),
            )
        )
    coverage = signals.cost_coverage
    priced = "" if coverage is None else f"{percent(coverage * 100)} of LLM calls priced"
    rows.append(("overall", "", "", priced, _status(signals.status)))
    return FittedTable(
        printable(headline(signals.scope, signals.window_s, signals.workflow)), _FIVE, rows, more="--json"
    )


def _by_workflow(signals: GoldenSignals) -> FittedTable:
    rows = (
        (
            workflow,
            count(own.runs.counted),
            count(own.runs.total),
            _or_nothing(percent(own.success_rate)),
            _or_nothing(ms(own.p95_latency_ms)),
            _or_nothing(usd(own.cost_per_successful_task_usd)),
            _status(own.status),
        )
        for workflow, own in signals.workflows.items()
    )
    return FittedTable("By workflow", _WORKFLOWS, rows, more="--json")


def _or_nothing(figure: str) -> str:
    return NOTHING if figure == UNKNOWN else figure


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.1f} to {interval.high:.1f} %"


def _status(status: SignalStatus) -> Text:
    return Text(status, style=COLOURS[status])
