"""Thresholds of the golden signals, and their objectives."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from taskpilot_obs.rules.fields import Duration, Events, Percent, Section, a_bound_of, below_the_last
from taskpilot_obs.rules.model import CRITICAL, WARNING
from taskpilot_obs.rules.promql import seconds
from taskpilot_obs.semconv import WORKFLOW_BUCKETS


class Below(Section):
    """A signal that should be high: the warning fires below `warning`, the critical alert below `critical`."""

    warning: float
    critical: float
    min_events: Events = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.critical <= self.warning <= 100:  # noqa: PLR2004  percent
            raise ValueError(f"0 < critical <= warning <= 100 is needed, given {self.critical} and {self.warning}")
        return self


class Above(Section):
    """A signal that should be low: the warning fires above `warning`, the critical alert above `critical`."""

    warning: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    critical: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    min_events: Events = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.warning > self.critical:
            raise ValueError(f"warning <= critical is needed, given {self.warning} and {self.critical}")
        return self


class TaskLatency(Above):
    """Thresholds of the 95th percentile of tasks."""

    warning: Annotated[float, Field(gt=0, allow_inf_nan=False), below_the_last(WORKFLOW_BUCKETS)]
    critical: Annotated[float, Field(gt=0, allow_inf_nan=False), below_the_last(WORKFLOW_BUCKETS)]


class BurnPair(Section):
    """One condition of a burn-rate alert: the budget burns `rate` times too fast over both windows.

    The four defaults are those of the Google SRE workbook, chapter 5: 2 % of a 30-day budget in 1 h, 5 % in 6 h, 10 %
    in 1 d, 10 % in 3 d.
    """

    long: Duration
    short: Duration
    rate: Annotated[float, Field(gt=0)]
    severity: Literal["critical", "warning"]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if seconds(self.short) >= seconds(self.long):
            raise ValueError(f"the short window {self.short} must be shorter than the long one, {self.long}")
        return self


def _burn_pairs() -> tuple[BurnPair, ...]:
    return (
        BurnPair(long="1h", short="5m", rate=14.4, severity=CRITICAL),
        BurnPair(long="6h", short="30m", rate=6, severity=CRITICAL),
        BurnPair(long="1d", short="2h", rate=3, severity=WARNING),
        BurnPair(long="3d", short="6h", rate=1, severity=WARNING),
    )


class SuccessObjective(Section):
    """Share of counted runs that must succeed."""

    objective: Percent = 95


class LatencyObjective(Section):
    """Share of runs that must end within `threshold_seconds`, which has to be a bound of the workflow buckets."""

    objective: Percent = 95
    threshold_seconds: Annotated[float, a_bound_of(WORKFLOW_BUCKETS)] = 2


class Slo(Section):
    """Objectives over `period`, and how fast their error budget may burn."""

    success: SuccessObjective = SuccessObjective()
    latency: LatencyObjective = LatencyObjective()
    period: Duration = "30d"
    min_events: Events = 10
    burn: tuple[BurnPair, ...] = Field(default_factory=_burn_pairs)

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        for name, objective in (("success", self.success.objective), ("latency", self.latency.objective)):
            for pair in self.burn:
                share = pair.rate * (100 - objective)
                if share >= 100:  # noqa: PLR2004  percent
                    raise ValueError(
                        f"slo.{name}: at an objective of {objective:g} % a burn rate of {pair.rate:g} means {share:g} %"
                        f" bad runs, which can never be exceeded; use an objective above {100 - 100 / pair.rate:.4g} %"
                        f" or a lower rate for {pair.long}/{pair.short}"
                    )
        if {pair.severity for pair in self.burn} != {CRITICAL, WARNING}:
            raise ValueError("slo.burn needs at least one pair of severity critical and one of severity warning")
        return self
