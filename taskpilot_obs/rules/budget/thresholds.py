"""Thresholds of the alerts on budgets."""

from __future__ import annotations

from taskpilot_obs.rules.fields import Duration, Percent, Section


class BudgetThresholds(Section):
    """Thresholds of budgets of money or tokens, in percent of their limits."""

    warning_percent: Percent = 75
    critical_percent: Percent = 90
    projection_window: Duration = "1h"
    projection_min_percent: Percent = 20
