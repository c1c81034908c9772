"""What is spent and reserved of each budget; and the ledger that a process keeps by itself."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

from taskpilot_obs.budgets.model import Budget, Window
from taskpilot_obs.guarded import to_the_end


class Account(NamedTuple):
    """One line of the ledger: a budget, the tenant (user, …) it is split by, and a period."""

    budget: str
    scope_key: str
    period_start: datetime


class Claim(NamedTuple):
    """An amount that a call may take from a budget, in its smallest unit."""

    budget: Budget
    account: Account
    window: Window
    amount: int


class Standing(NamedTuple):
    """Where an account stands, in its budget's smallest unit."""

    spent: int = 0
    reserved: int = 0
    alerted: int = 0
    """The highest threshold that was alerted in the period, in thousandths of the limit."""
    refusals: int = 0


class Refusal(NamedTuple):
    """The claim that has no room."""

    claim: Claim
    standing: Standing

    @property
    def is_final(self) -> bool:
        """Whether no settlement or expiry can make room in this period."""
        return self.standing.spent + self.claim.amount > self.claim.budget.limit


class Booking(NamedTuple):
    """What a call took; `hold` is the reservation that ends with it."""

    claim: Claim
    hold: str | None = None


class Mark(NamedTuple):
    """Names the bookings that are handed over together, so that a ledger knows them when they come again."""

    writer: str
    """Who hands them over; no other process, and no fork, has the same name."""
    number: int
    """From 1 on, and larger each time: a ledger needs to remember the last one only."""


class Settled(NamedTuple):
    """An account after a booking, and the thresholds that it crossed for the first time in its period."""

    claim: Claim
    standing: Standing
    crossed: tuple[int, ...]


class Ledger(Protocol):
    """Where budgets are kept. Every method is atomic, from any thread, and from any process where it has a store."""

    blocking: bool
    """Whether it does I/O, so that an event loop must not wait for it."""

    def reserve(self, hold: str, claims: Sequence[Claim], now: datetime, expires_at: datetime) -> Refusal | None:
        """Set all of these amounts aside, or none where one has no room.

        Raises:
            StoreError: the ledger cannot be reached.
        """

    def settle(self, bookings: Sequence[Booking], now: datetime, mark: Mark | None = None) -> list[Settled]:
        """Book what calls took, and end their reservations; with a mark once, and the answer is the same again.

        Raises:
            StoreUnavailableError: the ledger cannot be reached, or its answer was lost: it may all be booked, or none.
            StoreError: the ledger refuses; nothing was booked.
        """

    def release_expired(self, now: datetime) -> int:
        """End the reservations that nobody settled in time; how many there were."""

    def count_refusal(self, account: Account) -> None:
        """Note that a call was refused."""

    def read(self, budgets: Sequence[Budget], starts: Sequence[datetime]) -> dict[Account, Standing]:
        """The lines of these budgets in the periods that begin at these moments."""

    def close(self) -> None:
        """Let go of what it has opened."""


def key_of(hold: str, budget: str) -> str:
    """Names the part of a reservation that one budget holds."""
    return f"{hold}/{budget}"


def crossed_by(budget: Budget, standing: Standing) -> tuple[int, ...]:
    """The thresholds that are reached and were not alerted yet."""
    reached = standing.spent * 1_000 // budget.limit
    return tuple(each for each in budget.permilles if standing.alerted < each <= reached)


class _Held(NamedTuple):
    account: Account
    amount: int
    expires_at: datetime


class MemoryLedger:
    """The ledger of one process: gone when it ends, and not shared with other processes.

    Every process then has the whole limit for itself.
    """

    blocking = False

    def __init__(self) -> None:
        self._lines: dict[Account, Standing] = {}
        self._ends: dict[Account, datetime] = {}
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._answered: tuple[Mark | None, list[Settled]] = (None, [])
        """The last bookings that had a mark, and what was said to them."""
        self.renew()
        _ledgers.add(self)

    def renew(self) -> None:
        """In a forked child: go on with the parent's figures, and a lock of its own."""
        self._lock = threading.Lock()

    def reserve(self, hold: str, claims: Sequence[Claim], now: datetime, expires_at: datetime) -> Refusal | None:
        """Set all of these amounts aside, or none where one has no room."""
        with self._lock:
            lines = self._lines_with(claims)
            if isinstance(lines, Refusal):
                if self._expire(now):
                    lines = self._lines_with(claims)
                if isinstance(lines, Refusal):
                    return lines
            held = {}
            for claim in claims:
                held[key_of(hold, claim.budget.name)] = _Held(claim.account, claim.amount, expires_at)
            to_the_end(partial(self._change, lines, held))
        return None

    def _lines_with(self, claims: Sequence[Claim]) -> dict[Account, Standing] | Refusal:
        lines = {}
        for claim in claims:
            line = self._lines.get(claim.account) or self._line(claim)
            spent, reserved, alerted, refusals = line
            reserved += claim.amount
            if spent + reserved > claim.budget.limit:
                return Refusal(claim, line)
            lines[claim.account] = Standing(spent, reserved, alerted, refusals)
        return lines

    def _line(self, claim: Claim) -> Standing:
        """The line of a claim, which is new where there is none."""
        if claim.account not in self._lines:
            if claim.window.end is not None:
                self._ends[claim.account] = claim.window.end
            self._lines[claim.account] = Standing()
        return self._lines[claim.account]

    def _expire(self, now: datetime) -> int:
        """They were made in the order in which they end."""
        lines: dict[Account, Standing] = {}
        ended = []
        for key, held in self._held.items():
            if held.expires_at > now:
                break
            ended.append(key)
            self._give_back(lines, held)
        if ended:
            to_the_end(partial(self._change, lines, {}, ended))
        return len(ended)

    def _give_back(self, lines: dict[Account, Standing], held: _Held) -> None:
        line = lines.get(held.account) or self._lines.get(held.account)
        if line is not None:
            spent, reserved, alerted, refusals = line
            lines[held.account] = Standing(spent, reserved - held.amount, alerted, refusals)

    def settle(self, bookings: Sequence[Booking], now: datetime, mark: Mark | None = None) -> list[Settled]:
        """Book what calls took, and end their reservations; with a mark once, and the answer is the same again."""
        with self._lock:
            if mark is not None and mark == self._answered[0]:
                return self._answered[1]
            self._expire(now)
            return self._settle(bookings, mark)

    def _settle(self, bookings: Sequence[Booking], mark: Mark | None) -> list[Settled]:
        lines: dict[Account, Standing] = {}
        ended: dict[str, None] = {}
        settled = []
        for claim, hold in bookings:
            key = None if hold is None else key_of(hold, claim.budget.name)
            held = None if key is None or key in ended else self._held.get(key)
            if key is not None and held is not None:
                ended[key] = None
                self._give_back(lines, held)
            spent, reserved, alerted, refusals = lines.get(claim.account) or self._line(claim)
            line = Standing(spent + claim.amount, reserved, alerted, refusals)
            crossed = crossed_by(claim.budget, line)
            if crossed:
                line = line._replace(alerted=crossed[-1])
            lines[claim.account] = line
            settled.append(Settled(claim, line, crossed))
        to_the_end(partial(self._change, lines, {}, ended, (mark, settled)))
        return settled

    def _change(
        self,
        lines: Mapping[Account, Standing],
        held: Mapping[str, _Held],
        ended: Iterable[str] = (),
        answered: tuple[Mark | None, list[Settled]] | None = None,
    ) -> None:
        """Figures are absolute, so that what a Ctrl-C interrupts and is done again is done once."""
        self._lines.update(lines)
        if held:
            self._held.update(held)
        for key in ended:
            self._held.pop(key, None)
        if answered is not None:
            self._answered = answered

    def release_expired(self, now: datetime) -> int:
        """End the reservations that nobody settled in time, and forget the periods that ended a day ago."""
        with self._lock:
            number = self._expire(now)
            for account in [each for each, end in self._ends.items() if (now - end).days >= 1]:
                self._lines.pop(account, None)
                del self._ends[account]
        return number

    def count_refusal(self, account: Account) -> None:
        """Note that a call was refused."""
        with self._lock:
            line = self._lines[account]
            self._lines[account] = line._replace(refusals=line.refusals + 1)

    def read(self, budgets: Iterable[Budget], starts: Sequence[datetime]) -> dict[Account, Standing]:
        """The lines of these budgets in the periods that begin at these moments."""
        names = {budget.name for budget in budgets}
        with self._lock:
            return {
                account: line
                for account, line in self._lines.items()
                if account.budget in names and account.period_start in starts
            }

    def close(self) -> None:
        """Nothing is open."""


_ledgers: weakref.WeakSet[MemoryLedger] = weakref.WeakSet()


def _renew_all() -> None:
    for ledger in list(_ledgers):
        ledger.renew()


os.register_at_fork(after_in_child=_renew_all)
