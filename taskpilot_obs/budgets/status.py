"""Where budgets stand: used, left, when they begin anew, and where their period will end at this rate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from taskpilot_obs.budgets.ledger import Balance
from taskpilot_obs.budgets.model import Budget, Window

if TYPE_CHECKING:
    from taskpilot_obs.budgets.ledger import Ledger
    from taskpilot_obs.store.engine import Store


class BudgetStatus(NamedTuple):
    """One line of the ledger in its present period. Amounts are in `unit`."""

    budget: str
    scope_key: str
    """Whose limit it is, where the budget is split by tenant, user, …: JSON; else empty."""
    unit: str
    """`usd` or `tokens`."""
    period: str
    action: str
    limit: Decimal
    spent: Decimal
    reserved: Decimal
    left: Decimal
    """What a new call may still take: limit less spent and reserved, and never below 0."""
    used_ratio: float
    """Spent share of the limit; 1 is all of it."""
    excess: Decimal
    """How far the period is over its limit: by as much calls took more than was estimated."""
    refusals: int
    resets_at: datetime | None
    projected: Decimal | None
    """Spent at the end of the period if it goes on like this; None for `total`, and in the first minute."""


def statuses(budgets: Sequence[Budget], ledger: Ledger, at: datetime) -> list[BudgetStatus]:
    """Where these budgets stand, in the order given.

    Raises:
        StoreError: the ledger cannot be reached.
    """
    windows = {budget.name: budget.window(at) for budget in budgets}
    balances = ledger.read(budgets, list({window.start for window in windows.values()}))
    found = []
    for budget in budgets:
        window = windows[budget.name]
        own = {
            account.scope_key: balance
            for account, balance in balances.items()
            if account.budget == budget.name and account.period_start == window.start
        }
        if not own:
            own[""] = Balance()
        found += [_status(budget, window, key, balance, at) for key, balance in sorted(own.items())]
    return found


def _status(budget: Budget, window: Window, scope_key: str, balance: Balance, at: datetime) -> BudgetStatus:
    free = budget.limit - balance.spent - balance.reserved
    return BudgetStatus(
        budget.name,
        scope_key,
        budget.unit,
        budget.period,
        budget.action,
        budget.amount(budget.limit),
        budget.amount(balance.spent),
        budget.amount(balance.reserved),
        budget.amount(max(0, free)),
        balance.spent / budget.limit,
        budget.amount(max(0, balance.spent - budget.limit)),
        balance.refusals,
        window.end,
        _projected(budget, window, balance, at),
    )


def _projected(budget: Budget, window: Window, balance: Balance, at: datetime) -> Decimal | None:
    """Spent over the time that has passed, times the length of the period."""
    passed_s = int((at - window.start).total_seconds())
    if window.end is None or passed_s < 60:  # noqa: PLR2004  a minute; earlier, one call would fill a month
        return None
    whole_s = int((window.end - window.start).total_seconds())
    return budget.amount(balance.spent * whole_s // passed_s)


def budget_status(
    budgets: Sequence[Budget], *, store: str | Store | None = None, at: datetime | None = None
) -> list[BudgetStatus]:
    """Where budgets stand in a telemetry store.

    Args:
        budgets: the ones to look at.
        store: its URL, or one that is open; by default the one that this process fills, else `TASKPILOT_OBS_STORE`.
        at: the moment whose periods are meant; now by default.

    Raises:
        ConfigurationError: no store is named anywhere.
        StoreError: it is missing, or cannot be used.
    """
    from taskpilot_obs.store.access import opened
    from taskpilot_obs.store.budget_ledger import StoreLedger

    with opened(store) as used:
        return statuses(budgets, StoreLedger(used), at or datetime.now(UTC))
