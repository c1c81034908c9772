"""The ledger of budgets in a telemetry store: one for all processes and replicas, and it survives a restart.

A reservation is one conditional statement: it adds to a line only where the sum stays within the limit. SQLite runs it
under `BEGIN IMMEDIATE`; PostgreSQL as one `UPDATE … RETURNING` that also notes who holds the amount. Transactions take
their rows in one order, reservations before lines, so that they wait for each other and never in a circle.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, delete, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.budgets.ledger import (
    Balance,
    BudgetAccount,
    Refusal,
    ReservationLine,
    Settled,
    crossed_by,
    reservation_key,
)
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store.budget_limits import RENEWED, contradictions, note_limits, noted_limits
from taskpilot_obs.store.budget_lines import (
    Total,
    balance_of,
    full_at_most,
    is_account,
    new_line,
    other_unit,
    split_amount,
    sums_of,
)
from taskpilot_obs.store.budget_rates import forget_rates
from taskpilot_obs.store.budget_statements import ADD_AND_HOLD, ADD_THEN, BALANCE, HOLD_THEN
from taskpilot_obs.store.budget_writers import begun, crossed_before, keep_crossed
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER, BUDGET_RESERVATIONS
from taskpilot_obs.store.tables import columns_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from taskpilot_obs.budgets.ledger import Charge, IdempotencyKey, Ledger
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.store.engine import Store


_RESERVING: Final = 2
"""Threads of a process that reserve at the same moment. They wait for the row of their budget anyway, and each takes a
connection, of which the worker that settles calls needs one."""
_AT_ONCE: Final = 1_000
"""Reservations that one transaction renews or releases."""
_L = BUDGET_LEDGER.c
_R = BUDGET_RESERVATIONS.c


class StoreLedger:
    """Budgets in a telemetry store, shared by every process that uses it.

    Args:
        store: where they are kept; its tables may be of any version that this code uses.
        owned: whether `close` closes the store; it stays open where other objects use it.
    """

    blocking = True

    def __init__(self, store: Store, *, owned: bool = False) -> None:
        self._store = store
        self.database = store.url
        self._owned = owned
        self._process = os.getpid()
        self._reserving = threading.BoundedSemaphore(_RESERVING)
        self._insert: Any = sqlite.insert if store.is_sqlite else postgresql.insert
        self._noted: tuple[Sequence[Budget], datetime] | None = None
        """Which budgets' limits were noted, and when."""

    def _renewed(self) -> Store:
        if self._process != os.getpid():
            self._store.renew()
            self._reserving = threading.BoundedSemaphore(_RESERVING)
            self._process = os.getpid()
        return self._store

    def _there(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values of columns that the tables have: those of the version before lack some."""
        columns = columns_of(BUDGET_LEDGER, self._store.known_version)
        return {name: value for name, value in values.items() if name in columns}

    def _figures(self) -> list[Any]:
        """The columns of a balance, 0 where the tables lack one."""
        columns = columns_of(BUDGET_LEDGER, self._store.known_version)
        return [column if column.name in columns else literal_column("0", Integer) for column in BALANCE]

    def is_same(self, other: Ledger) -> bool:
        """Whether the other one is kept in the same database."""
        return isinstance(other, StoreLedger) and other.database == self.database

    def close(self) -> None:
        """Close the store, if this ledger owns it."""
        if self._owned:
            self._store.close()

    # --- before a call -----------------------------------------------------------------------------------------------

    def reserve(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> Refusal | None:
        """Set all of these amounts aside, or none where one has no room.

        Raises:
            StoreError: the store cannot be used; `StoreUnavailableError` where it may work later.
        """
        ordered = sorted(lines, key=lambda line: line.account)
        self._renewed()
        with self._reserving:
            refusal = self._tried(reservation_id, ordered, now, expires_at)
            if refusal is not None and not refusal.is_final and self.release_expired(now):
                refusal = self._tried(reservation_id, ordered, now, expires_at)
        return refusal

    def _tried(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> Refusal | None:
        """Once more where the first call of a period had no line to add to."""
        refused = self._all_or_none(reservation_id, lines, now, expires_at)
        if refused is not None and self._without_account(refused, lines, now):
            refused = self._all_or_none(reservation_id, lines, now, expires_at)
        if refused is None:
            return None
        balance = self._balance(refused)
        return None if balance is None else Refusal(refused, balance)

    def _all_or_none(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> ReservationLine | None:
        with self._renewed().writing() as connection:
            for line in lines:
                if not self._added(connection, reservation_id, line, now, expires_at):
                    connection.rollback()
                    return line
        return None

    def _added(
        self, connection: Connection, reservation_id: str, line: ReservationLine, now: datetime, expires_at: datetime
    ) -> bool:
        budget = line.budget
        units, rest = split_amount(budget, line.amount)
        limit_units, limit_rest = split_amount(budget, budget.limit)
        values = {
            **line.account._asdict(),
            "reservation_id": reservation_key(reservation_id, budget.name),
            "unit": budget.unit,
            "units": units,
            "rest": rest,
            "limit_units": limit_units,
            "limit_rest": limit_rest,
            "now": now,
            "expires_at": expires_at,
        }
        if not self._store.is_sqlite:
            return connection.execute(ADD_AND_HOLD, values).rowcount > 0
        if not connection.execute(ADD_THEN, values).rowcount:
            return False
        connection.execute(HOLD_THEN, values)
        return True

    def _without_account(self, refused: ReservationLine, lines: Sequence[ReservationLine], now: datetime) -> bool:
        """Whether lines were missing; they are there now."""
        if self._balance(refused) is not None:
            return False
        with self._renewed().writing() as connection:
            for line in lines:
                new = self._insert(BUDGET_LEDGER).values(self._there(new_line(line, now)))
                connection.execute(new.on_conflict_do_nothing())
        return True

    def _balance(self, line: ReservationLine) -> Balance | None:
        with self._renewed().reading() as connection:
            row = connection.execute(select(_L.unit, *self._figures()).where(*is_account(line.account))).one_or_none()
        if row is None:
            return None
        if row[0] != line.budget.unit:
            raise StoreError(other_unit(line.budget, row[0]))
        return balance_of(line.budget, row[1:])

    def count_refusal(self, account: BudgetAccount, exhausted: int = 0) -> bool:
        """Count a refused call; returns whether the threshold had not been alerted in the period.

        Raises:
            StoreError: the store cannot be used.
        """
        counted = update(BUDGET_LEDGER).where(*is_account(account)).values(refusals=_L.refusals + 1)
        alerted = update(BUDGET_LEDGER).where(*is_account(account), _L.alerted_permille < exhausted)
        with self._renewed().writing() as connection:
            connection.execute(counted)
            return connection.execute(alerted.values(alerted_permille=exhausted)).rowcount > 0

    def renew(self, keys: Sequence[str], expires_at: datetime) -> None:
        """Let these reservations last until then; those that have ended stay ended.

        Raises:
            StoreError: the store cannot be used.
        """
        ordered = sorted(keys)
        for first in range(0, len(ordered), _AT_ONCE):
            some = ordered[first : first + _AT_ONCE]
            which = select(_R.reservation_id).where(_R.reservation_id.in_(some)).order_by(_R.reservation_id)
            with self._renewed().writing() as connection:
                found = connection.execute(which.with_for_update()).scalars().all()
                later = update(BUDGET_RESERVATIONS).where(_R.reservation_id.in_(found)).values(expires_at=expires_at)
                connection.execute(later)

    # --- after a call ------------------------------------------------------------------------------------------------

    def settle(
        self, charges: Sequence[Charge], now: datetime, idempotency_key: IdempotencyKey | None = None
    ) -> list[Settled]:
        """Book what calls took, and end their reservations, in one transaction; with a mark once, however often.

        Raises:
            StoreUnavailableError: the store cannot be used, or its answer was lost: all may be booked, or nothing.
            StoreError: it refuses, or a budget of that name counts another unit; nothing was booked.
        """
        if not charges:
            return []
        sums = sums_of(charges)
        lines = [sums[account] for account in sorted(sums)]
        ended = sorted(
            reservation_key(each.reservation_id, each.line.budget.name)
            for each in charges
            if each.reservation_id is not None
        )
        with self._renewed().writing() as connection:
            if idempotency_key is not None and not begun(connection, idempotency_key, now):
                return self._answer_again(connection, [each.line for each in lines], idempotency_key)
            released = self._released(connection, _R.reservation_id.in_(ended)) if ended else {}
            for account in sorted(released.keys() - sums.keys()):
                self._give_back(connection, account, *released[account])
            settled = [self._charged(connection, each, released.get(each.line.account, (0, 0)), now) for each in lines]
            if idempotency_key is not None:
                keep_crossed(connection, idempotency_key, [each.crossed for each in settled])
        return settled

    def _answer_again(
        self, connection: Connection, lines: Sequence[ReservationLine], idempotency_key: IdempotencyKey
    ) -> list[Settled]:
        """What was booked is not booked again; who asks did not hear which thresholds it crossed."""
        crossed = crossed_before(connection, idempotency_key, len(lines))
        figures = select(*self._figures())
        balances = [connection.execute(figures.where(*is_account(line.account))).one() for line in lines]
        return [
            Settled(line, balance_of(line.budget, balance), each)
            for line, balance, each in zip(lines, balances, crossed, strict=True)
        ]

    def _released(self, connection: Connection, which: Any) -> dict[BudgetAccount, tuple[int, int]]:
        """Delete reservations; what they held, by account."""
        found: dict[BudgetAccount, tuple[int, int]] = defaultdict(lambda: (0, 0))
        columns = (_R.budget, _R.scope_key, _R.period_start, _R.units, _R.rest)
        for budget, scope_key, start, units, rest in connection.execute(
            delete(BUDGET_RESERVATIONS).where(which).returning(*columns)
        ):
            account = BudgetAccount(budget, scope_key, start)
            before = found[account]
            found[account] = (before[0] + units, before[1] + rest)
        return dict(found)

    def _give_back(self, connection: Connection, account: BudgetAccount, units: int, rest: int) -> None:
        less = {"reserved_units": _L.reserved_units - units, "reserved_rest": _L.reserved_rest - rest}
        connection.execute(update(BUDGET_LEDGER).where(*is_account(account)).values(less))

    def _charged(self, connection: Connection, total: Total, released: tuple[int, int], now: datetime) -> Settled:
        line = total.line
        units, rest = split_amount(line.budget, line.amount)
        assumed = split_amount(line.budget, total.assumed)
        amounts = {"spent_units": units, "spent_rest": rest, "assumed_units": assumed[0], "assumed_rest": assumed[1]}
        limit = dict(zip(("limit_units", "limit_rest"), split_amount(line.budget, line.budget.limit), strict=True))
        changed = {
            "spent_units": full_at_most(_L.spent_units, units),
            "spent_rest": _L.spent_rest + rest,
            "assumed_units": full_at_most(_L.assumed_units, assumed[0]),
            "assumed_rest": _L.assumed_rest + assumed[1],
            "reserved_units": _L.reserved_units - released[0],
            "reserved_rest": _L.reserved_rest - released[1],
            "updated_at": now,
            **limit,
        }
        insert = self._insert(BUDGET_LEDGER).values(self._there({**new_line(line, now), **amounts, **limit}))
        added = insert.on_conflict_do_update(
            index_elements=[_L.budget, _L.scope_key, _L.period_start],
            set_=self._there(changed),
            where=_L.unit == line.budget.unit,
        ).returning(*self._figures())
        row = connection.execute(added).one_or_none()
        if row is None:
            raise StoreError(other_unit(line.budget, "another unit"))
        balance = balance_of(line.budget, row)
        crossed = crossed_by(line.budget, balance)
        if crossed:
            connection.execute(
                update(BUDGET_LEDGER).where(*is_account(line.account)).values(alerted_permille=crossed[-1])
            )
            balance = balance._replace(alerted=crossed[-1])
        return Settled(line, balance, crossed)

    def forget_rates(self, now: datetime) -> int:
        """Delete old lines of budgets by the minute and by the hour; returns how many.

        Raises:
            StoreError: the store cannot be used.
        """
        return forget_rates(self._renewed(), now)

    def release_expired(self, now: datetime) -> int:
        """End the reservations that were not settled in time; returns how many.

        Raises:
            StoreError: the store cannot be used.
        """
        due = select(_R.reservation_id).where(_R.expires_at <= now).order_by(_R.reservation_id).limit(_AT_ONCE)
        with self._renewed().reading() as connection:  # most of the time nothing is due, and no writer has to wait
            if connection.execute(due.limit(1)).first() is None:
                return 0
        with self._renewed().writing() as connection:
            found = connection.execute(due.with_for_update(skip_locked=True)).scalars().all()
            released = self._released(connection, _R.reservation_id.in_(found)) if found else {}
            for account in sorted(released):
                self._give_back(connection, account, *released[account])
        return len(found)

    # --- reading -----------------------------------------------------------------------------------------------------

    def other_limits(self, budgets: Sequence[Budget], now: datetime) -> dict[str, tuple[str, ...]]:
        """The limits that other processes keep under the names of these budgets; notes those of this one.

        Raises:
            StoreError: the store cannot be used.
        """
        store = self._renewed()
        if self._noted is None or self._noted[0] != budgets or now - self._noted[1] >= RENEWED:
            note_limits(store, budgets, now)
            self._noted = (budgets, now)
        with store.reading() as connection:
            return contradictions(budgets, noted_limits(connection, now))

    def read(self, budgets: Sequence[Budget], starts: Sequence[datetime]) -> dict[BudgetAccount, Balance]:
        """The lines of these budgets in the periods that begin at these moments.

        Raises:
            StoreError: the store cannot be used.
        """
        if not budgets:  # a store in ClickHouse has no table to look into
            return {}
        by_name = {budget.name: budget for budget in budgets}
        request = select(_L.budget, _L.scope_key, _L.period_start, *self._figures()).where(
            _L.budget.in_(list(by_name)), _L.period_start.in_(list(starts))
        )
        with self._renewed().reading() as connection:
            return {
                BudgetAccount(*row[:3]): balance_of(by_name[row[0]], row[3:]) for row in connection.execute(request)
            }
