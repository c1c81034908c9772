"""Golden signals as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from taskpilot_obs.golden_signals.model import GoldenSignals, SignalEvidence, SignalStatus

COLOURS: Final = {
    SignalStatus.HEALTHY: "green",
    SignalStatus.WARNING: "yellow",
    SignalStatus.CRITICAL: "red",
    SignalStatus.INSUFFICIENT_DATA: "dim",
}
SCOPES: Final = {
    "process": "this process",
    "workers": "all workers",
    "fleet": "every replica",
    "store": "the telemetry store",
}
NOTHING: Final = "no data"
_MILLISECONDS: Final = 1_000


def percent(figure: float) -> str:
    """A percentage, as "98.4 %"."""
    return f"{figure:.4g} %" if figure < 100 else f"{figure:.0f} %"  # noqa: PLR2004  a full percentage


def latency(milliseconds: float) -> str:
    """A latency, in milliseconds below a second and in seconds from there."""
    return f"{milliseconds:.3g} ms" if milliseconds < _MILLISECONDS else f"{milliseconds / _MILLISECONDS:.3g} s"


def dollars(figure: float) -> str:
    """An amount of USD with three significant digits at least."""
    return f"${figure:,.2f}" if figure >= 1 else f"${figure:.3g}"


Format = Callable[[float], str]
SIGNALS: Final[tuple[tuple[str, str, Format, str], ...]] = (
    ("success_rate", "success rate", percent, "of {denominator} runs"),
    ("p95_latency_ms", "p95 latency", latency, "{denominator} runs"),
    ("cost_per_successful_task_usd", "cost per success", dollars, "${numerator} / {denominator} runs"),
    ("user_confirmed_correctness_percent", "confirmed correct", percent, "of {denominator} rated"),
    ("policy_violation_rate_percent", "policy violations", percent, "{numerator} / {denominator} runs"),
)
"""Name in the model, name for a reader, how to write a figure, how to write its evidence."""


def signals_view(signals: GoldenSignals) -> RenderableType:
    """The five signals, the workflows behind them and the notes."""
    parts: list[RenderableType] = [_five(signals)]
    if signals.workflows and signals.workflow is None:
        parts.append(_by_workflow(signals))
    parts += [Text(f"note: {note}", style="dim") for note in signals.notes]
    return Group(*parts)


def headline(signals: GoldenSignals) -> str:
    """Whose signals these are, and of when."""
    window = "since the start" if signals.window_s is None else f"last {_span(signals.window_s)}"
    only = "" if signals.workflow is None else f", workflow {signals.workflow}"
    return f"Golden signals: {SCOPES[signals.scope]}, {window}{only}"


def _five(signals: GoldenSignals) -> Table:
    table = Table(title=headline(signals), title_justify="left")
    for column in ("signal", "figure", "95 % interval", "evidence", "status"):
        table.add_column(column, justify="right" if column == "figure" else "left")
    for name, label, form, evidence in SIGNALS:
        behind = signals.evidence[name]
        table.add_row(
            label,
            _figure(getattr(signals, name), form),
            _interval(behind),
            _evidence(behind, evidence),
            _status(behind),
        )
    table.add_section()
    coverage = "" if signals.cost_coverage is None else f"{percent(signals.cost_coverage * 100)} of LLM calls priced"
    table.add_row("overall", "", "", coverage, Text(signals.status, style=COLOURS[signals.status]))
    return table


def _by_workflow(signals: GoldenSignals) -> Table:
    table = Table(title="By workflow", title_justify="left")
    for column in ("workflow", "runs", "success rate", "p95 latency", "cost per success", "status"):
        table.add_column(column, justify="left" if column in {"workflow", "status"} else "right")
    for name, own in signals.workflows.items():
        table.add_row(
            Text(name),
            _count(own.runs.total),
            _figure(own.success_rate, percent),
            _figure(own.p95_latency_ms, latency),
            _figure(own.cost_per_successful_task_usd, dollars),
            Text(own.status, style=COLOURS[own.status]),
        )
    return table


def _figure(figure: float | None, form: Format) -> str:
    return NOTHING if figure is None else form(figure)


def _count(count: float) -> str:
    return f"{count:,.0f}"


def _interval(evidence: SignalEvidence) -> str:
    if evidence.interval is None:
        return ""
    return f"{evidence.interval.low:.1f} to {evidence.interval.high:.1f} %"


def _evidence(evidence: SignalEvidence, form: str) -> str:
    if evidence.denominator <= 0 and not evidence.numerator:
        return ""
    numerator = evidence.numerator or 0.0
    shown = f"{numerator:,.4g}" if form.startswith("$") else _count(numerator)
    return form.format(numerator=shown, denominator=_count(evidence.denominator))


def _status(evidence: SignalEvidence) -> Text:
    return Text(evidence.status, style=COLOURS[evidence.status])


def _span(seconds: float) -> str:
    for unit, size in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
