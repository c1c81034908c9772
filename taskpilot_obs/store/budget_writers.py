"""Which bookings a process handed over last, so that those whose answer was lost are booked once, and answered again.

A row a process: bookings come in the order of their numbers, one transaction at a time, so the last number is enough.
The row is changed first of all, in the transaction of the bookings. Where the connection broke while the server went on
with that transaction, the second try waits at this row for its end.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, select, text, update

from taskpilot_obs.store.ledger_tables import BUDGET_WRITERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from taskpilot_obs.budgets.ledger import IdempotencyKey

KEPT: Final = timedelta(days=7)
"""How long a process that books nothing is remembered: far longer than one asks again for an answer that was lost."""
_W: Final = BUDGET_WRITERS.c
_BEGIN: Final = text("""
    INSERT INTO budget_writers (writer, batch, booked_at) VALUES (:writer, :batch, :now)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, crossed = NULL, booked_at = excluded.booked_at
    WHERE budget_writers.batch < excluded.batch
""").bindparams(bindparam("now", type_=_W.booked_at.type))


def begun(connection: Connection, idempotency_key: IdempotencyKey, now: datetime) -> bool:
    """Note that these bookings are made in this transaction; False where they were made already."""
    values = {"writer": idempotency_key.writer, "batch": idempotency_key.number, "now": now}
    if not connection.execute(_BEGIN, values).rowcount:
        return False
    if idempotency_key.number == 1:  # each that comes clears up behind those that went
        old = select(_W.writer).where(_W.booked_at < now - KEPT).order_by(_W.writer).limit(1_000)
        connection.execute(delete(BUDGET_WRITERS).where(_W.writer.in_(old.with_for_update(skip_locked=True))))
    return True


def keep_crossed(connection: Connection, idempotency_key: IdempotencyKey, crossed: Sequence[tuple[int, ...]]) -> None:
    """Keep the thresholds that the bookings crossed, account by account: an alert is given once, or never."""
    if any(crossed):
        told = update(BUDGET_WRITERS).where(_W.writer == idempotency_key.writer).values(crossed=json.dumps(crossed))
        connection.execute(told)


def crossed_before(connection: Connection, idempotency_key: IdempotencyKey, accounts: int) -> list[tuple[int, ...]]:
    """The thresholds that these bookings crossed when they were made."""
    found = connection.execute(select(_W.crossed).where(_W.writer == idempotency_key.writer)).scalar_one()
    return [tuple(each) for each in json.loads(found)] if found else [()] * accounts
