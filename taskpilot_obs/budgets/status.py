"""The state of budgets: spent, left, when they reset, and the projected spending until then."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from taskpilot_obs.budgets.ledger import UNUSED, Balance
from taskpilot_obs.budgets.model import Budget, Window
from taskpilot_obs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder
    from taskpilot_obs.budgets.admission import AdmissionController
    from taskpilot_obs.budgets.ledger import Ledger
    from taskpilot_obs.store.engine import Store


class BudgetStatus(NamedTuple):
    """One account of the ledger in its present period. Amounts are in `unit`."""

    budget: str
    scope_key: str
    """Whose limit it is, where the budget is split by tenant, user, …: JSON; else empty."""
    unit: str
    """`usd`, `tokens` or `requests`."""
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
    """How far the period is over its limit, because calls took more than was estimated."""
    refusals: int
    resets_at: datetime | None
    projected: Decimal | None
    """Spent at the end of the period if it goes on like this; None for `total`, and in the first minute."""
    assumed: Decimal
    """The part of `spent` that was booked by estimate, because the calls' cost is unknown."""
    tenant: str | None
    """The tenant whose limit it is, where the budget is scoped to one or split by tenant."""


def statuses(budgets: Sequence[Budget], ledger: Ledger, at: datetime) -> list[BudgetStatus]:
    """The state of these budgets, in the order given.

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
            own[""] = UNUSED
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
        budget.amount(balance.assumed),
        budget.scope_of(scope_key).get("tenant"),
    )


def _projected(budget: Budget, window: Window, balance: Balance, at: datetime) -> Decimal | None:
    """Spent over the time that has passed, times the length of the period."""
    passed_s = int((at - window.start).total_seconds())
    if window.end is None or passed_s < 60:  # noqa: PLR2004  a minute; earlier, one call would fill a month
        return None
    whole_s = int((window.end - window.start).total_seconds())
    return budget.amount(balance.spent * whole_s // passed_s)


def budget_status(
    budgets: Sequence[Budget] | None = None,
    *,
    store: str | Store | None = None,
    recorder: Recorder | None = None,
    at: datetime | None = None,
) -> list[BudgetStatus]:
    """The state of budgets: those of this process, or those of a telemetry store.

    Args:
        budgets: the ones to look at; by default those that the recorder watches.
        store: the URL of a store, or an open one. By default the ledger that the recorder's budgets are kept in (this
            process' memory, or its store); where it has none, the store that this process fills, else
            `TASKPILOT_OBS_STORE`.
        recorder: whose budgets; the default recorder when left out.
        at: the moment whose periods are meant; now by default.

    Raises:
        ConfigurationError: no budgets are given or watched, there is neither a ledger nor a store, or the store is in
            ClickHouse, which keeps no budgets.
        StoreError: the store is missing, or cannot be used.
    """
    admission = _running(recorder)
    wanted = admission.budgets if budgets is None and admission is not None else budgets
    if wanted is None:
        raise ConfigurationError("budgets: none given, and none are configured in this process")
    if store is None and admission is not None:
        admission.catch_up()
        return statuses(wanted, admission.ledger, at or admission.utc_now())
    from taskpilot_obs.store.access import opened
    from taskpilot_obs.store.budget_ledger import StoreLedger

    with opened(store) as used:
        if used.is_clickhouse:
            raise ConfigurationError(
                f"store: {used} keeps no budgets, because it has no transactions; "
                "give the store that budget_store= of configure names"
            )
        return statuses(wanted, StoreLedger(used), at or datetime.now(UTC))


def _running(recorder: Recorder | None) -> AdmissionController | None:
    from taskpilot_obs.config import running_recorder

    used = recorder or running_recorder()
    return None if used is None or used.parts is None else used.parts.budgets
