"""Under which limits processes keep the budgets of a store: two limits of one name are reported, not silently shared.

Each process notes its limits every minute under a key of `store_state`. A note that is not renewed counts no more,
so that a limit may be changed by replacing one process after the other.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.store.tables import STATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.store.engine import Store

RENEWED: Final = timedelta(minutes=1)
"""How often a process notes its limits."""
COUNTS: Final = timedelta(minutes=3)
"""How long a note counts."""
_KEY: Final = "budget_limit:"
_FORGOTTEN: Final = timedelta(days=1)


def note_limits(store: Store, budgets: Sequence[Budget], now: datetime) -> None:
    """Note under which limits this process keeps its budgets, and delete notes of yesterday.

    Raises:
        StoreError: the store cannot be used.
    """
    insert: Any = (sqlite if store.is_sqlite else postgresql).insert(STATE)
    put = insert.on_conflict_do_update(index_elements=[STATE.c.key], set_={"value": insert.excluded.value})
    lines = [{"key": key, "value": now} for key in sorted(map(_key_of, budgets))]
    old = STATE.c.key.startswith(_KEY, autoescape=True) & (STATE.c.value < now - _FORGOTTEN)
    with store.writing() as connection:
        if lines:
            connection.execute(put, lines)
        connection.execute(delete(STATE).where(old))


def noted_limits(connection: Connection, now: datetime) -> dict[str, tuple[str, ...]]:
    """The limits that running processes keep, by the name of the budget: one, or several that contradict each other."""
    state = STATE.c
    recent = select(state.key).where(
        state.key.startswith(_KEY, autoescape=True), state.value > now - COUNTS, state.value < now + COUNTS
    )
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key in sorted(connection.execute(recent).scalars()):
        name, limit = json.loads(key.removeprefix(_KEY))
        found[name].append(limit)
    return {name: tuple(limits) for name, limits in found.items()}


def contradictions(budgets: Sequence[Budget], noted: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The limits that other processes keep under the names of these budgets."""
    found = {
        budget.name: tuple(limit for limit in noted.get(budget.name, ()) if limit != limit_of(budget))
        for budget in budgets
    }
    return {name: limits for name, limits in found.items() if limits}


def limit_of(budget: Budget) -> str:
    """The limit of a budget in words, such as `10 usd a day (Europe/Berlin)`."""
    amount = f"{budget.amount(budget.limit):f} {budget.unit}"
    if budget.period == "total":
        return f"{amount} in total"
    return f"{amount} a {budget.period}" + (f" ({budget.timezone})" if budget.timezone != "UTC" else "")


def _key_of(budget: Budget) -> str:
    return _KEY + json.dumps([budget.name, limit_of(budget)])
