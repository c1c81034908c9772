"""The configurable thresholds of the golden signals."""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
HIGHER_IS_BETTER: Final = frozenset({"success_rate", "user_confirmed_correctness_percent"})


class Limits(NamedTuple):
    """The two bounds of one signal, both inclusive: healthy up to the first, a warning up to the second."""

    healthy: Figure
    warning: Figure


class Thresholds(BaseModel):
    """Bounds of the five golden signals, each as (healthy, warning) in the unit of its signal.

    `Thresholds(success_rate=Limits(99, 95))` changes one and keeps the other defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    success_rate: Limits = Limits(95, 90)
    """Percent; higher is better."""
    p95_latency_ms: Limits = Limits(2_000, 5_000)
    cost_per_successful_task_usd: Limits = Limits(0.10, 0.50)
    user_confirmed_correctness_percent: Limits = Limits(90, 70)
    """Higher is better."""
    policy_violation_rate_percent: Limits = Limits(1, 2)

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        for name in type(self).model_fields:
            limits: Limits = getattr(self, name)
            higher = name in HIGHER_IS_BETTER
            if (limits.healthy < limits.warning) if higher else (limits.healthy > limits.warning):
                relation = "at least" if higher else "at most"
                raise ValueError(
                    f"{name}: given healthy={limits.healthy:g}, warning={limits.warning:g}; "
                    f"the healthy bound must be {relation} the warning bound"
                )
            if higher and limits.healthy > 100:  # noqa: PLR2004  a percentage
                raise ValueError(f"{name}: given healthy={limits.healthy:g}; a percentage is at most 100")
        return self
