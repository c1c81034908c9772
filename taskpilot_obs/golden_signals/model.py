"""The golden signals that callers get: five figures with their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, computed_field

from taskpilot_obs.golden_signals.wording import WORDINGS, Wording, aligned, evidence_text, figure_text, headline

Scope = Literal["process", "workers", "fleet", "store"]


class SignalStatus(StrEnum):
    """The rating of a figure by the thresholds."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"
    INSUFFICIENT_DATA = "insufficient_data"


class Interval(NamedTuple):
    """The values that the evidence does not rule out, from `low` to `high`, in the unit of their figure."""

    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether the evidence leaves this value possible."""
        return self.low <= value <= self.high


class _Frozen(BaseModel):
    # Computed fields are in the JSON, and computed again when it is read back. Built at first use, not at import.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Ratio(_Frozen):
    """Numerator and denominator of a figure. Counts may be fractions where a Prometheus server extrapolates them."""

    numerator: float | None
    """None for a quantile, which divides nothing."""
    denominator: float
    interval: Interval | None = None
    """Wilson score interval at 95 %; only for proportions of at least one."""


class SignalEvidence(Ratio):
    """The evidence of one golden signal, and its rating."""

    status: SignalStatus


class Runs(_Frozen):
    """Finished runs by how they ended."""

    success: float = 0
    error: float = 0
    timeout: float = 0
    blocked: float = 0
    cancelled: float = 0
    abandoned: float = 0
    interrupted: float = 0

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property; pydantic documents this form
    @property
    def counted(self) -> float:
        """Runs behind the success rate: success, error, timeout and blocked."""
        return self.success + self.error + self.timeout + self.blocked

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def total(self) -> float:
        """Every finished run."""
        return self.counted + self.cancelled + self.abandoned + self.interrupted


class WorkflowSignals(_Frozen):
    """The signals that are available per workflow. Units as in `GoldenSignals`."""

    success_rate: float | None
    p95_latency_ms: float | None
    cost_per_successful_task_usd: float | None
    status: SignalStatus
    runs: Runs
    cost_usd: float
    runs_with_violations_percent: float | None
    p95_is_interpolated: bool = False
    """Whether the p95 lies somewhere in the histogram bucket of the exact one, which is not known."""


class GoldenSignals(_Frozen):
    """The five golden signals of agents, each None where there is no evidence for it. Nothing is rounded.

    A figure of None is never 0 or 100: no successful run means that a cost per success does not exist.
    """

    success_rate: float | None
    """Percent of counted runs that succeeded."""
    p95_latency_ms: float | None
    """95th percentile of task durations in milliseconds, whatever the status."""
    cost_per_successful_task_usd: float | None
    """Cost of all LLM calls divided by successful tasks."""
    user_confirmed_correctness_percent: float | None
    """Percent of rated requests whose latest verdict is correct; overall only."""
    policy_violation_rate_percent: float | None
    """Policy denials per 100 counted runs; above 100 where runs violate more than once; overall only."""

    status: SignalStatus
    """The worst signal that has evidence; `insufficient_data` only where there was no run."""
    scope: Scope
    """`process`: this process; `workers`: every worker behind one exposition; `fleet`: every replica; `store`: all
    processes that write to the telemetry store."""
    window_s: float | None
    """Seconds that the figures cover, after rounding up; None: since the start."""
    workflow: str | None
    """The requested workflow; None for all."""
    runs: Runs
    evidence: Mapping[str, SignalEvidence]
    """By the name of the signal."""
    cost_usd: float
    cost_coverage: float | None
    """Share (0 to 1) of LLM calls with a known price; None without calls, and for a single workflow."""
    llm_calls: float | None
    unpriced_llm_calls: float | None
    runs_with_violations_percent: float | None
    """Percent of finished runs with at least one policy violation."""
    runs_with_violations: Ratio
    workflows: Mapping[str, WorkflowSignals]
    history_s: float | None = None
    """Seconds of history that a Prometheus server has for the figures; None where no server was asked."""
    incomplete_before: datetime | None = None
    """A telemetry store has deleted records before this moment by age; `notes` say which. None: all are counted."""
    p95_is_interpolated: bool = False
    """Whether the p95 lies somewhere in the histogram bucket of the exact one, which is not known."""
    notes: tuple[str, ...] = ()
    """Sentences that explain why a figure is missing, or what it does not cover."""

    def __str__(self) -> str:
        """A table of the five figures with the counts behind them; `repr()` has every field."""
        head = f"{headline(self.scope, self.window_s, self.workflow)}: {self.status}"
        table = aligned(map(self._row, WORDINGS))
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join((head, table, *notes))

    def _row(self, wording: Wording) -> tuple[str, ...]:
        behind = self.evidence[wording.field]
        figure = figure_text(wording, getattr(self, wording.field))
        rests_on = evidence_text(
            wording, behind.numerator, behind.denominator, is_interpolated=self.p95_is_interpolated
        )
        return wording.label, figure, rests_on, behind.status
