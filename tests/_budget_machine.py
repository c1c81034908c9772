"""Any order of reserve, settle, crash and expiry on a ledger, held to what must always be true."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from hypothesis import strategies as st

from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, Ledger, ReservationLine

LIMIT = 1_000
LIFE = timedelta(seconds=100)
START = datetime.fromisoformat("2026-03-10T12:00:00+00:00")
_numbers = itertools.count()


class Step(NamedTuple):
    """What one of the processes does."""

    what: str
    process: int
    figure: int


STEPS = st.lists(
    st.builds(
        Step, st.sampled_from(["reserve", "reserve", "settle", "crash", "wait"]), st.integers(0, 2), st.integers(0, 400)
    ),
    min_size=1,
    max_size=40,
)


class Held(NamedTuple):
    """A reservation of a process that lives."""

    reservation_id: str
    line: ReservationLine
    until: datetime


def run(ledgers: Sequence[Ledger], steps: Sequence[Step]) -> None:
    """Let processes, each with a ledger of its own onto the same store, do these steps.

    After each: what is spent stays within the limit but for what calls took beyond their estimates, or settled after
    their reservation had expired; and what is reserved is what lives.
    """
    budget = Budget(f"b{next(_numbers)}", limit_tokens=LIMIT, action="enforce")
    window = budget.window(START)
    account = BudgetAccount(budget.name, "", window.start)
    held: list[list[Held]] = [[] for _ in ledgers]
    crashed: list[Held] = []
    now, error, spent = START, 0, 0
    for number, (what, process, figure) in enumerate(steps):
        mine = process % len(ledgers)
        ledger, own = ledgers[mine], held[mine]
        if what == "reserve":
            line = ReservationLine(budget, account, window, figure)
            refusal = ledger.reserve(f"{budget.name}-{number}", [line], now, now + LIFE)
            alive = sum(each.line.amount for each in itertools.chain(*held, crashed) if each.until > now)
            assert refusal is None or spent + alive + figure > LIMIT, "a call that has room is admitted"
            if refusal is None:
                own.append(Held(f"{budget.name}-{number}", line, now + LIFE))
        elif what == "settle" and own:
            done = own.pop(0)
            ledger.settle([Charge(done.line._replace(amount=figure), done.reservation_id)], now)
            spent += figure
            error += figure if done.until <= now else max(0, figure - done.line.amount)
        elif what == "crash":
            crashed += own
            own.clear()
        elif what == "wait":
            now += timedelta(seconds=figure / 4)
        balance = ledger.read([budget], [window.start]).get(account)
        assert balance is None or balance.spent == spent
        assert spent <= LIMIT + error, "admitted spend passes the limit by the error of the estimates at most"
    ledgers[0].release_expired(now + 2 * LIFE)
    balance = ledgers[0].read([budget], [window.start]).get(account)
    assert balance is None or balance.reserved == 0, "nothing is reserved for ever"
