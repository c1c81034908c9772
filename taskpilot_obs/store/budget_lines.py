"""Lines of the budget ledger in a store: how amounts, figures and accounts stand in their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import case

from taskpilot_obs.budgets.ledger import Balance, BudgetAccount, ReservationLine
from taskpilot_obs.store.budget_statements import BALANCE, MOST_UNITS, REST
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from taskpilot_obs.budgets.ledger import Charge
    from taskpilot_obs.budgets.model import Budget

_L: Final = BUDGET_LEDGER.c


class Total(NamedTuple):
    """What the charges of one transaction add to an account."""

    line: ReservationLine
    assumed: int


def sums_of(charges: Sequence[Charge]) -> dict[BudgetAccount, Total]:
    """What the charges add to each account."""
    sums: dict[BudgetAccount, Total] = {}
    for line, _, is_assumed in charges:
        known, assumed = sums.get(line.account), line.amount if is_assumed else 0
        if known is None:
            sums[line.account] = Total(line, assumed)
        else:
            amount = known.line.amount + line.amount
            sums[line.account] = Total(line._replace(amount=amount), known.assumed + assumed)
    return sums


def full_at_most(column: Any, units: int) -> Any:
    """The sum, or the largest value that the column holds."""
    return case((column > MOST_UNITS - units, MOST_UNITS), else_=column + units)


def split_amount(budget: Budget, amount: int) -> tuple[int, int]:
    """An amount in the two columns of a ledger: units and rest, both as large as they may get."""
    units, rest = divmod(amount, REST) if budget.unit == "usd" else (amount, 0)
    return min(units, MOST_UNITS), rest


def balance_of(budget: Budget, row: Any) -> Balance:
    """The figures of a row, in the budget's smallest unit."""
    factor = REST if budget.unit == "usd" else 1
    assumed = row[6] * factor + row[7]
    return Balance(row[0] * factor + row[1], row[2] * factor + row[3], row[4], row[5], assumed)


def is_account(account: BudgetAccount) -> tuple[Any, ...]:
    """The condition that a row is the line of this account."""
    return (_L.budget == account.budget, _L.scope_key == account.scope_key, _L.period_start == account.period_start)


def new_line(line: ReservationLine, now: datetime) -> dict[str, object]:
    """A line on which nothing is booked."""
    zeros = dict.fromkeys([column.key for column in (*BALANCE,)], 0)
    about = {"period": line.budget.period, "unit": line.budget.unit, "updated_at": now}
    return {**line.account._asdict(), **about, **zeros}


def other_unit(budget: Budget, found: str) -> str:
    """The message where a budget of that name counts something else."""
    return f"budget {budget.name!r} counts {budget.unit}, but the store has it in {found}: give it another name"
