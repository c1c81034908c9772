"""The ledger of budgets in a telemetry store: one for all processes and replicas, and it survives a restart.

A reservation is one conditional statement: it adds to a line only where the sum stays within the limit. SQLite runs it
under `BEGIN IMMEDIATE`; PostgreSQL as one `UPDATE … RETURNING` that also notes who holds the amount. Transactions take
their rows in one order, reservations before lines, so that they wait for each other and never in a circle.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, delete, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.budgets.ledger import Account, Claim, Refusal, Settled, Standing, crossed_by, key_of
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store.budget_writers import begun, crossed_before, keep_crossed
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER, BUDGET_RESERVATIONS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from taskpilot_obs.budgets.ledger import Booking, Mark
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.store.engine import Store


_REST: Final = 1_000
"""Amounts in USD are split: whole billionths, and trillionths on top."""
_MOST_UNITS: Final = 9_200_000_000_000_000_000
"""What a column holds. A line that is full stays full: one absurd call must not keep the next from being booked."""
_L = BUDGET_LEDGER.c
_R = BUDGET_RESERVATIONS.c
_THIS_LINE: Final = "budget = :budget AND scope_key = :scope_key AND period_start = :period_start"
_LEFT: Final = ":limit_units - spent_units - reserved_units - (spent_rest + reserved_rest + :rest) / 1000"
_ROOM: Final = f"""
    ({_LEFT} > :units OR ({_LEFT} = :units AND (spent_rest + reserved_rest + :rest) % 1000 <= :limit_rest))
"""
_ADD: Final = f"""
    UPDATE budget_ledger
    SET reserved_units = reserved_units + :units, reserved_rest = reserved_rest + :rest, updated_at = :now
    WHERE {_THIS_LINE} AND unit = :unit AND {_ROOM}
"""  # noqa: S608  nothing in it comes from outside
_HOLD: Final = """
    INSERT INTO budget_reservations
        (reservation_id, budget, scope_key, period_start, units, rest, created_at, expires_at)
"""
_VALUES: Final = ":reservation_id, :budget, :scope_key, :period_start, :units, :rest, :now, :expires_at"


def _typed(sql: str) -> Any:
    """A statement whose times are converted as the tables' are."""
    moments = [name for name in ("period_start", "now", "expires_at") if f":{name}" in sql]
    return text(sql).bindparams(*(bindparam(name, type_=_L.updated_at.type) for name in moments))


_ADD_THEN: Final = _typed(_ADD)
_HOLD_THEN: Final = _typed(f"{_HOLD} VALUES ({_VALUES})")
_CASTS: Final = (
    _VALUES.replace(":units", "CAST(:units AS bigint)")
    .replace(":rest", "CAST(:rest AS bigint)")
    .replace(":now", "CAST(:now AS timestamptz)")
    .replace(":expires_at", "CAST(:expires_at AS timestamptz)")
    .replace(":period_start", "CAST(:period_start AS timestamptz)")
    .replace(":reservation_id", "CAST(:reservation_id AS text)")
    .replace(":budget", "CAST(:budget AS text)")
    .replace(":scope_key", "CAST(:scope_key AS text)")
)
_ADD_AND_HOLD: Final = _typed(f"WITH added AS ({_ADD} RETURNING 1) {_HOLD} SELECT {_CASTS} FROM added")  # noqa: S608  nothing in it comes from outside
_STANDING: Final = (
    _L.spent_units,
    _L.spent_rest,
    _L.reserved_units,
    _L.reserved_rest,
    _L.alerted_permille,
    _L.refusals,
)


class StoreLedger:
    """Budgets in a telemetry store, shared by every process that uses it.

    Args:
        store: where they are kept; its tables must be current.
        owned: whether nobody else uses this object, so that `close` closes it.
    """

    blocking = True

    def __init__(self, store: Store, *, owned: bool = False) -> None:
        self._store = store
        self._owned = owned
        self._process = os.getpid()
        self._insert: Any = sqlite.insert if store.is_sqlite else postgresql.insert

    def _renewed(self) -> Store:
        if self._process != os.getpid():
            self._store.renew()
            self._process = os.getpid()
        return self._store

    def close(self) -> None:
        """Close the store, where nobody else uses it."""
        if self._owned:
            self._store.close()

    # --- before a call -----------------------------------------------------------------------------------------------

    def reserve(self, hold: str, claims: Sequence[Claim], now: datetime, expires_at: datetime) -> Refusal | None:
        """Set all of these amounts aside, or none where one has no room.

        Raises:
            StoreError: the store cannot be used; `StoreUnavailableError` where it may work later.
        """
        ordered = sorted(claims, key=lambda claim: claim.account)
        refusal = self._tried(hold, ordered, now, expires_at)
        if refusal is not None and not refusal.is_final and self.release_expired(now):
            refusal = self._tried(hold, ordered, now, expires_at)
        return refusal

    def _tried(self, hold: str, claims: Sequence[Claim], now: datetime, expires_at: datetime) -> Refusal | None:
        """Once more where the first call of a period had no line to add to."""
        refused = self._all_or_none(hold, claims, now, expires_at)
        if refused is not None and self._without_line(refused, claims, now):
            refused = self._all_or_none(hold, claims, now, expires_at)
        if refused is None:
            return None
        standing = self._line(refused)
        return None if standing is None else Refusal(refused, standing)

    def _all_or_none(self, hold: str, claims: Sequence[Claim], now: datetime, expires_at: datetime) -> Claim | None:
        with self._renewed().writing() as connection:
            for claim in claims:
                if not self._added(connection, hold, claim, now, expires_at):
                    connection.rollback()
                    return claim
        return None

    def _added(self, connection: Connection, hold: str, claim: Claim, now: datetime, expires_at: datetime) -> bool:
        budget = claim.budget
        units, rest = _split(budget, claim.amount)
        limit_units, limit_rest = _split(budget, budget.limit)
        values = {
            **claim.account._asdict(),
            "reservation_id": key_of(hold, budget.name),
            "unit": budget.unit,
            "units": units,
            "rest": rest,
            "limit_units": limit_units,
            "limit_rest": limit_rest,
            "now": now,
            "expires_at": expires_at,
        }
        if not self._store.is_sqlite:
            return connection.execute(_ADD_AND_HOLD, values).rowcount > 0
        if not connection.execute(_ADD_THEN, values).rowcount:
            return False
        connection.execute(_HOLD_THEN, values)
        return True

    def _without_line(self, refused: Claim, claims: Sequence[Claim], now: datetime) -> bool:
        """Whether lines were missing; they are there now."""
        if self._line(refused) is not None:
            return False
        with self._renewed().writing() as connection:
            for claim in claims:
                connection.execute(self._insert(BUDGET_LEDGER).values(_new(claim, now)).on_conflict_do_nothing())
        return True

    def _line(self, claim: Claim) -> Standing | None:
        with self._renewed().reading() as connection:
            row = connection.execute(select(_L.unit, *_STANDING).where(*_is(claim.account))).one_or_none()
        if row is None:
            return None
        if row[0] != claim.budget.unit:
            raise StoreError(_other_unit(claim.budget, row[0]))
        return _standing(claim.budget, row[1:])

    def count_refusal(self, account: Account) -> None:
        """Note that a call was refused.

        Raises:
            StoreError: the store cannot be used.
        """
        with self._renewed().writing() as connection:
            connection.execute(update(BUDGET_LEDGER).where(*_is(account)).values(refusals=_L.refusals + 1))

    # --- after a call ------------------------------------------------------------------------------------------------

    def settle(self, bookings: Sequence[Booking], now: datetime, mark: Mark | None = None) -> list[Settled]:
        """Book what calls took, and end their reservations, in one transaction; with a mark once, however often.

        Raises:
            StoreUnavailableError: the store cannot be used, or its answer was lost: all may be booked, or nothing.
            StoreError: it refuses, or a budget of that name counts another unit; nothing was booked.
        """
        if not bookings:
            return []
        sums: dict[Account, Claim] = {}
        for claim, _ in bookings:
            known = sums.get(claim.account)
            sums[claim.account] = claim if known is None else known._replace(amount=known.amount + claim.amount)
        claims = [sums[account] for account in sorted(sums)]
        holds = sorted(key_of(hold, claim.budget.name) for claim, hold in bookings if hold is not None)
        with self._renewed().writing() as connection:
            if mark is not None and not begun(connection, mark, now):
                return self._answer_again(connection, claims, mark)
            released = self._released(connection, _R.reservation_id.in_(holds)) if holds else {}
            for account in sorted(released.keys() - sums.keys()):
                self._give_back(connection, account, *released[account])
            settled = [self._booked(connection, claim, released.get(claim.account, (0, 0)), now) for claim in claims]
            if mark is not None:
                keep_crossed(connection, mark, [each.crossed for each in settled])
        return settled

    def _answer_again(self, connection: Connection, claims: Sequence[Claim], mark: Mark) -> list[Settled]:
        """What was booked is not booked again; who asks did not hear which thresholds it crossed."""
        crossed = crossed_before(connection, mark, len(claims))
        lines = [connection.execute(select(*_STANDING).where(*_is(claim.account))).one() for claim in claims]
        return [
            Settled(claim, _standing(claim.budget, line), each)
            for claim, line, each in zip(claims, lines, crossed, strict=True)
        ]

    def _released(self, connection: Connection, which: Any) -> dict[Account, tuple[int, int]]:
        """Delete reservations; what they held, by account."""
        found: dict[Account, tuple[int, int]] = defaultdict(lambda: (0, 0))
        columns = (_R.budget, _R.scope_key, _R.period_start, _R.units, _R.rest)
        for budget, scope_key, start, units, rest in connection.execute(
            delete(BUDGET_RESERVATIONS).where(which).returning(*columns)
        ):
            account = Account(budget, scope_key, start)
            before = found[account]
            found[account] = (before[0] + units, before[1] + rest)
        return dict(found)

    def _give_back(self, connection: Connection, account: Account, units: int, rest: int) -> None:
        less = {"reserved_units": _L.reserved_units - units, "reserved_rest": _L.reserved_rest - rest}
        connection.execute(update(BUDGET_LEDGER).where(*_is(account)).values(less))

    def _booked(self, connection: Connection, claim: Claim, released: tuple[int, int], now: datetime) -> Settled:
        units, rest = _split(claim.budget, claim.amount)
        insert = self._insert(BUDGET_LEDGER).values({**_new(claim, now), "spent_units": units, "spent_rest": rest})
        added = insert.on_conflict_do_update(
            index_elements=[_L.budget, _L.scope_key, _L.period_start],
            set_={
                "spent_units": case((_L.spent_units > _MOST_UNITS - units, _MOST_UNITS), else_=_L.spent_units + units),
                "spent_rest": _L.spent_rest + rest,
                "reserved_units": _L.reserved_units - released[0],
                "reserved_rest": _L.reserved_rest - released[1],
                "updated_at": now,
            },
            where=_L.unit == claim.budget.unit,
        ).returning(*_STANDING)
        row = connection.execute(added).one_or_none()
        if row is None:
            raise StoreError(_other_unit(claim.budget, "another unit"))
        standing = _standing(claim.budget, row)
        crossed = crossed_by(claim.budget, standing)
        if crossed:
            connection.execute(update(BUDGET_LEDGER).where(*_is(claim.account)).values(alerted_permille=crossed[-1]))
            standing = standing._replace(alerted=crossed[-1])
        return Settled(claim, standing, crossed)

    def release_expired(self, now: datetime) -> int:
        """End the reservations that nobody settled in time; how many there were.

        Raises:
            StoreError: the store cannot be used.
        """
        due = select(_R.reservation_id).where(_R.expires_at <= now).order_by(_R.reservation_id).limit(1_000)
        with self._renewed().reading() as connection:  # most of the time nothing is due, and nobody need wait
            if connection.execute(due.limit(1)).first() is None:
                return 0
        with self._renewed().writing() as connection:
            found = connection.execute(due.with_for_update(skip_locked=True)).scalars().all()
            released = self._released(connection, _R.reservation_id.in_(found)) if found else {}
            for account in sorted(released):
                self._give_back(connection, account, *released[account])
        return len(found)

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, budgets: Sequence[Budget], starts: Sequence[datetime]) -> dict[Account, Standing]:
        """The lines of these budgets in the periods that begin at these moments.

        Raises:
            StoreError: the store cannot be used.
        """
        by_name = {budget.name: budget for budget in budgets}
        asked = select(_L.budget, _L.scope_key, _L.period_start, *_STANDING).where(
            _L.budget.in_(list(by_name)), _L.period_start.in_(list(starts))
        )
        with self._renewed().reading() as connection:
            return {Account(*row[:3]): _standing(by_name[row[0]], row[3:]) for row in connection.execute(asked)}


def _split(budget: Budget, amount: int) -> tuple[int, int]:
    units, rest = divmod(amount, _REST) if budget.unit == "usd" else (amount, 0)
    return min(units, _MOST_UNITS), rest


def _standing(budget: Budget, row: Any) -> Standing:
    factor = _REST if budget.unit == "usd" else 1
    return Standing(row[0] * factor + row[1], row[2] * factor + row[3], row[4], row[5])


def _is(account: Account) -> tuple[Any, ...]:
    return (_L.budget == account.budget, _L.scope_key == account.scope_key, _L.period_start == account.period_start)


def _new(claim: Claim, now: datetime) -> dict[str, object]:
    """A line on which nothing is booked."""
    zeros = dict.fromkeys(
        ("spent_units", "spent_rest", "reserved_units", "reserved_rest", "refusals", "alerted_permille"), 0
    )
    about = {"period": claim.budget.period, "unit": claim.budget.unit, "updated_at": now}
    return {**claim.account._asdict(), **about, **zeros}


def _other_unit(budget: Budget, found: str) -> str:
    return f"budget {budget.name!r} counts {budget.unit}, but the store has it in {found}: give it another name"
