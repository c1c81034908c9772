"""Thresholds of the alerts on budgets."""

from __future__ import annotations

from taskpilot_obs.rules.fields import Duration, Percent, Section


class BudgetThresholds(Section):
    """Thresholds of budgets of money or tokens, in percent of their limits."""

    warning_percent: Percent = 75
    """Shares of the limit at which the warning and the critical alert fire."""
    critical_percent: Percent = 90
    projection_window: Duration = "1h"
    """A budget will run out when its limit is passed by the end of the period at the rate of this window; only for
    budgets of which so much is spent."""
    projection_min_percent: Percent = 20
