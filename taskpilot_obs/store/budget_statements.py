"""The conditional statements of the budget ledger: add to a line only where the sum stays within the limit."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import bindparam, text

from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER

REST: Final = 1_000
"""Amounts in USD are split: whole billionths, and trillionths on top."""
MOST_UNITS: Final = 9_200_000_000_000_000_000
"""What a column holds. A line that is full stays full: one absurd call must not keep the next from being booked."""
_L = BUDGET_LEDGER.c
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


ADD_THEN: Final = _typed(_ADD)
HOLD_THEN: Final = _typed(f"{_HOLD} VALUES ({_VALUES})")
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
ADD_AND_HOLD: Final = _typed(f"WITH added AS ({_ADD} RETURNING 1) {_HOLD} SELECT {_CASTS} FROM added")  # noqa: S608  nothing in it comes from outside
BALANCE: Final = (
    _L.spent_units,
    _L.spent_rest,
    _L.reserved_units,
    _L.reserved_rest,
    _L.alerted_permille,
    _L.refusals,
    _L.assumed_units,
    _L.assumed_rest,
)
