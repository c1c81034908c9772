"""Golden signals in words and figures, for a terminal and for `print()`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from taskpilot_obs._support.figures import count, ms, percent, seconds, usd

NOTHING: Final = "no data"
SCOPES: Final = {
    "process": "this process",
    "workers": "all workers",
    "fleet": "every replica",
    "store": "the telemetry store",
}


class Wording(NamedTuple):
    """How one signal is shown."""

    field: str
    """The field of `GoldenSignals`."""
    label: str
    """In a terminal."""
    title: str
    """On a page."""
    figure: Callable[[float | None], str]
    evidence: str
    """What the figure was computed from, with places for `numerator` and `denominator`."""


WORDINGS: Final = (
    Wording("success_rate", "success rate", "Success rate", percent, "{numerator} of {denominator} counted runs"),
    Wording("p95_latency_ms", "p95 latency", "Latency, p95", ms, "{denominator} tasks"),
    Wording(
        "cost_per_successful_task_usd",
        "cost per success",
        "Cost per successful task",
        usd,
        "{cost} / {denominator} successful tasks",
    ),
    Wording(
        "user_confirmed_correctness_percent",
        "confirmed correct",
        "Confirmed correct",
        percent,
        "{numerator} of {denominator} rated",
    ),
    Wording(
        "policy_violation_rate_percent",
        "policy violations",
        "Policy violations",
        percent,
        "{numerator} in {denominator} counted runs",
    ),
)


def headline(scope: str, window_s: float | None, workflow: str | None) -> str:
    """What the signals cover: processes, period and workflow."""
    window = "since the start" if window_s is None else f"last {seconds(window_s)}"
    only = "" if workflow is None else f", workflow {workflow}"
    return f"Golden signals: {SCOPES[scope]}, {window}{only}"


def figure_text(wording: Wording, figure: float | None) -> str:
    """The figure with its unit, or that there is none."""
    return NOTHING if figure is None else wording.figure(figure)


def evidence_text(
    wording: Wording, numerator: float | None, denominator: float, *, is_interpolated: bool = False
) -> str:
    """The counts behind a figure, and whether a quantile is interpolated; empty without any."""
    if denominator <= 0 and not numerator:
        return ""
    top = numerator or 0.0
    text = wording.evidence.format(numerator=count(top), denominator=count(denominator), cost=usd(top))
    text = text.removesuffix("s") if count(denominator) == "1" else text
    return f"{text}, interpolated" if is_interpolated and wording.field == "p95_latency_ms" else text


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines of text with aligned columns."""
    lines = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
