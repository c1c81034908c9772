"""Old lines of budgets by the minute and by the hour: nothing is booked on them, and no page shows them, any more."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, delete, or_, select, tuple_

from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER

if TYPE_CHECKING:
    from datetime import datetime

    from taskpilot_obs.store.engine import Store

KEPT: Final = {"minute": timedelta(hours=1), "hour": timedelta(days=1)}
_AT_ONCE: Final = 500
_L: Final = BUDGET_LEDGER.c
_KEY: Final = (_L.budget, _L.scope_key, _L.period_start)


def forget_rates(store: Store, now: datetime) -> int:
    """Delete such lines, some at a time; returns how many.

    Raises:
        StoreError: the store cannot be used.
    """
    aged = (and_(_L.period == period, _L.period_start < now - kept) for period, kept in KEPT.items())
    due = select(*_KEY).where(or_(*aged), _L.reserved_units == 0, _L.reserved_rest == 0).order_by(*_KEY)
    with store.reading() as connection:  # most of the time nothing is due, and no writer has to wait
        if connection.execute(due.limit(1)).first() is None:
            return 0
    with store.writing() as connection:
        found = connection.execute(due.limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
        if found:
            connection.execute(delete(BUDGET_LEDGER).where(tuple_(*_KEY).in_([tuple(row) for row in found])))
    return len(found)
