"""Response models that the library itself does not define."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final, Literal, Self

from pydantic import Field

from taskpilot_obs.compare.report import Arm, VariantsReport
from taskpilot_obs.stats.calls import Call
from taskpilot_obs.stats.model import Frozen, Usd


class CallsPage(Frozen):
    """Some LLM calls, newest first."""

    items: tuple[Call, ...]
    next_cursor: str | None
    """For the page that follows; null on the last one."""


class BudgetLine(Frozen):
    """One line of a budget in its present period. Amounts are in `unit`."""

    budget: str
    scope_key: str
    """Whose limit it is, where the budget is split by tenant, user, …: JSON; else empty."""
    unit: Literal["usd", "tokens"]
    period: str
    action: str
    limit: Usd
    spent: Usd
    reserved: Usd
    left: Usd
    used_ratio: float
    excess: Usd
    refusals: int
    resets_at: datetime | None
    projected: Usd | None
    assumed: Usd
    """The part of `spent` that was booked by estimate."""
    tenant: str | None


class ExperimentArm(Arm):
    """One variant, its cost as money is written everywhere."""

    cost: Usd | None  # type: ignore[assignment]  # a statistic in the library, an amount in an answer
    """The mean over units of each unit's cost of a task in USD, of units whose calls all have a known cost."""


class ExperimentReport(VariantsReport):
    """The results of an experiment so far; its intervals hold at every look."""

    arms: tuple[ExperimentArm, ...]
    shares_stated: bool
    """Whether the planned shares were stated; else equal ones are assumed."""

    @classmethod
    def of(cls, report: VariantsReport, *, shares_stated: bool) -> Self:
        """The same report as an answer.

        Args:
            report: of `compare_variants`.
            shares_stated: whether the planned shares were stated.
        """
        arms = tuple(ExperimentArm(**{**dict(arm), "cost": _amount(arm.cost)}) for arm in report.arms)
        return cls(**{**dict(report), "arms": arms}, shares_stated=shares_stated)


_DECIMALS: Final = 12


def _amount(cost: float | None) -> Decimal | None:
    return None if cost is None else Decimal(str(round(cost, _DECIMALS)))


class UserVerdict(Frozen):
    """What a user says about the answer to a request."""

    request_id: str = Field(min_length=1, max_length=256, examples=["req-1"])
    correct: bool = Field(strict=True, description="Whether the answer was right.")
    comment: str | None = Field(None, max_length=2_000, description="Redacted before it is kept.")
    user_id: str | None = Field(None, min_length=1, max_length=256)


class Accepted(Frozen):
    """The verdict is written."""

    request_id: str
    correct: bool
    status: Literal["accepted"] = "accepted"


class Health(Frozen):
    """Whether a part of the server works."""

    status: Literal["ok", "unavailable"]
    store: Literal["ok", "unavailable"] | None = None
    prometheus: Literal["ok", "unavailable"] | None = None


class GoldenHealth(Frozen):
    """The golden signals for a load balancer."""

    status: str
    success_rate: float | None
    p95_latency_ms: float | None
    cost_per_successful_task_usd: float | None
    user_confirmed_correctness_percent: float | None
    policy_violation_rate_percent: float | None
    window_s: float | None
