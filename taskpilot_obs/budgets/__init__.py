"""Budgets: how much LLM calls may cost in a day, week or month, and calls refused before they are made.

configure(budgets=[Budget("support", limit_usd=50, scope={"agent": "Support"}, action="enforce")])
"""

from __future__ import annotations

from taskpilot_obs.budgets.alerts import BudgetAlert
from taskpilot_obs.budgets.files import load_budgets
from taskpilot_obs.budgets.model import Budget
from taskpilot_obs.budgets.status import BudgetStatus, budget_status

__all__ = ["Budget", "BudgetAlert", "BudgetStatus", "budget_status", "load_budgets"]
