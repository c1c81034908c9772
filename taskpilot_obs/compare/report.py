"""The result of an experiment, as `compare_variants` gives it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import computed_field

from taskpilot_obs.golden_signals.model import Interval
from taskpilot_obs.stats.model import Frozen

Verdict = Literal["better", "worse", "not enough evidence", "blocked"]


class Arm(Frozen):
    """One variant: how much was seen of it, and what it came to. None is unknown."""

    variant: str
    share: float
    """The planned share of the units."""
    units: int
    """Users, sessions, tenants or requests that were assigned."""
    tasks: int
    success: float | None
    """The mean over units of each unit's success rate, 0 to 1."""
    cost: float | None
    """The mean over units of each unit's cost of a task in USD, of units whose calls all have a known cost."""
    p50: float | None
    """The median over units of each unit's mean duration, in milliseconds."""
    p95: float | None
    """The 95th percentile over units of each unit's mean duration, in milliseconds."""
    correctness: float | None
    """The mean over units of each unit's share of confirmed answers, 0 to 1."""
    tokens: float | None
    violations: float | None
    """The mean over units of each unit's share of tasks with a policy violation, 0 to 1."""
    cost_coverage: float | None
    """The share of units whose calls all have a known cost."""
    intervals: dict[str, Interval]
    """Of the values above, by name; they hold at every look. A value without one rests on too little."""


class Effect(Frozen):
    """How one variant differs from the control by one measure."""

    measure: str
    variant: str
    difference: float | None
    """Of the variant from the control."""
    low: float | None
    high: float | None
    """The interval of the difference; it holds at every look. None where too little was seen."""
    relative: float | None
    """The difference, divided by the control's value."""
    p_value: float | None
    """At every look; for secondary measures after the control of false discoveries."""
    verdict: Verdict
    more_units: int | None
    """About how many more units would decide, if the difference is what it looks like; None where it is not known."""


class VariantsReport(Frozen):
    """The results of an experiment so far."""

    experiment: str
    start: datetime
    end: datetime
    control: str
    primary: Effect | None
    """The effect of the one variant beside the control, or of the best of several, by the primary measure."""
    arms: tuple[Arm, ...]
    effects: tuple[Effect, ...]
    sample_ratio_p_value: float
    blocked: str | None
    """Why no verdict is given; None where nothing stands against it."""
    incomplete_before: datetime | None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def conclusion(self) -> str:
        """The result in one sentence."""
        if self.blocked is not None:
            return f"No verdict: {self.blocked}"
        if self.primary is None:
            return "No verdict: no task of the experiment was recorded in this period"
        effect = self.primary
        if effect.verdict in ("better", "worse"):
            return f"{effect.variant} is {effect.verdict} than {self.control} by {effect.measure}"
        more = "" if effect.more_units is None else f"; about {effect.more_units:,} more units may decide"
        return f"Not enough evidence that {effect.variant} differs from {self.control} by {effect.measure}{more}"
