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


class ReservationLine(NamedTuple):
    """An amount that a call may take from a budget, in its smallest unit."""

    budget: Budget
    account: Account
    window: Window
    amount: int


class Balance(NamedTuple):
    """Where an account stands, in its budget's smallest unit."""

    spent: int = 0
    reserved: int = 0
    alerted: int = 0
    """The highest threshold that was alerted in the period, in thousandths of the limit."""
    refusals: int = 0


class Refusal(NamedTuple):
    """The claim that has no room."""

    line: ReservationLine
    balance: Balance

    @property
    def is_final(self) -> bool:
        """Whether no settlement or expiry can make room in this period."""
        return self.balance.spent + self.line.amount > self.line.budget.limit


class Charge(NamedTuple):
    """What a call took; `hold` is the reservation that ends with it."""

    line: ReservationLine
    reservation_id: str | None = None


class IdempotencyKey(NamedTuple):
    """Names the bookings that are handed over together, so that a ledger knows them when they come again."""

    writer: str
    """Who hands them over; no other process, and no fork, has the same name."""
    number: int
    """From 1 on, and larger each time: a ledger needs to remember the last one only."""


class Settled(NamedTuple):
    """An account after a booking, and the thresholds that it crossed for the first time in its period."""

    line: ReservationLine
    balance: Balance
    crossed: tuple[int, ...]


class Ledger(Protocol):
    """Where budgets are kept. Every method is atomic, from any thread, and from any process where it has a store."""

    blocking: bool
    """Whether it does I/O, so that an event loop must not wait for it."""

    def reserve(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> Refusal | None:
        """Set all of these amounts aside, or none where one has no room.

        Raises:
            StoreError: the ledger cannot be reached.
        """

    def settle(
        self, charges: Sequence[Charge], now: datetime, idempotency_key: IdempotencyKey | None = None
    ) -> list[Settled]:
        """Book what calls took, and end their reservations; with a mark once, and the answer is the same again.

        Raises:
            StoreUnavailableError: the ledger cannot be reached, or its answer was lost: it may all be booked, or none.
            StoreError: the ledger refuses; nothing was booked.
        """

    def release_expired(self, now: datetime) -> int:
        """End the reservations that nobody settled in time; how many there were."""

    def count_refusal(self, account: Account) -> None:
        """Note that a call was refused."""

    def read(self, budgets: Sequence[Budget], starts: Sequence[datetime]) -> dict[Account, Balance]:
        """The lines of these budgets in the periods that begin at these moments."""

    def close(self) -> None:
        """Let go of what it has opened."""


def reservation_key(reservation_id: str, budget: str) -> str:
    """Names the part of a reservation that one budget holds."""
    return f"{reservation_id}/{budget}"


def crossed_by(budget: Budget, balance: Balance) -> tuple[int, ...]:
    """The thresholds that are reached and were not alerted yet."""
    reached = balance.spent * 1_000 // budget.limit
    return tuple(each for each in budget.permilles if balance.alerted < each <= reached)


class _HeldAmount(NamedTuple):
    account: Account
    amount: int
    expires_at: datetime


class MemoryLedger:
    """The ledger of one process: gone when it ends, and not shared with other processes.

    Every process then has the whole limit for itself.
    """

    blocking = False

    def __init__(self) -> None:
        self._balances: dict[Account, Balance] = {}
        self._ends: dict[Account, datetime] = {}
        self._held: OrderedDict[str, _HeldAmount] = OrderedDict()
        self._answered: tuple[IdempotencyKey | None, list[Settled]] = (None, [])
        """The last bookings that had a mark, and what was said to them."""
        self.renew()
        _ledgers.add(self)

    def renew(self) -> None:
        """In a forked child: go on with the parent's figures, and a lock of its own."""
        self._lock = threading.Lock()

    def reserve(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> Refusal | None:
        """Set all of these amounts aside, or none where one has no room."""
        with self._lock:
            balances = self._balances_with(lines)
            if isinstance(balances, Refusal):
                if self._expire(now):
                    balances = self._balances_with(lines)
                if isinstance(balances, Refusal):
                    return balances
            held = {}
            for line in lines:
                held[reservation_key(reservation_id, line.budget.name)] = _HeldAmount(
                    line.account, line.amount, expires_at
                )
            to_the_end(partial(self._change, balances, held))
        return None

    def _balances_with(self, lines: Sequence[ReservationLine]) -> dict[Account, Balance] | Refusal:
        balances = {}
        for line in lines:
            balance = self._balances.get(line.account) or self._balance(line)
            spent, reserved, alerted, refusals = balance
            reserved += line.amount
            if spent + reserved > line.budget.limit:
                return Refusal(line, balance)
            balances[line.account] = Balance(spent, reserved, alerted, refusals)
        return balances

    def _balance(self, line: ReservationLine) -> Balance:
        """The line of a claim, which is new where there is none."""
        if line.account not in self._balances:
            if line.window.end is not None:
                self._ends[line.account] = line.window.end
            self._balances[line.account] = Balance()
        return self._balances[line.account]

    def _expire(self, now: datetime) -> int:
        """They were made in the order in which they end."""
        balances: dict[Account, Balance] = {}
        ended = []
        for key, held in self._held.items():
            if held.expires_at > now:
                break
            ended.append(key)
            self._give_back(balances, held)
        if ended:
            to_the_end(partial(self._change, balances, {}, ended))
        return len(ended)

    def _give_back(self, balances: dict[Account, Balance], held: _HeldAmount) -> None:
        balance = balances.get(held.account) or self._balances.get(held.account)
        if balance is not None:
            spent, reserved, alerted, refusals = balance
            balances[held.account] = Balance(spent, reserved - held.amount, alerted, refusals)

    def settle(
        self, charges: Sequence[Charge], now: datetime, idempotency_key: IdempotencyKey | None = None
    ) -> list[Settled]:
        """Book what calls took, and end their reservations; with a mark once, and the answer is the same again."""
        with self._lock:
            if idempotency_key is not None and idempotency_key == self._answered[0]:
                return self._answered[1]
            self._expire(now)
            return self._settle(charges, idempotency_key)

    def _settle(self, charges: Sequence[Charge], idempotency_key: IdempotencyKey | None) -> list[Settled]:
        balances: dict[Account, Balance] = {}
        ended: dict[str, None] = {}
        settled = []
        for line, reservation_id in charges:
            key = None if reservation_id is None else reservation_key(reservation_id, line.budget.name)
            held = None if key is None or key in ended else self._held.get(key)
            if key is not None and held is not None:
                ended[key] = None
                self._give_back(balances, held)
            spent, reserved, alerted, refusals = balances.get(line.account) or self._balance(line)
            balance = Balance(spent + line.amount, reserved, alerted, refusals)
            crossed = crossed_by(line.budget, balance)
            if crossed:
                balance = balance._replace(alerted=crossed[-1])
            balances[line.account] = balance
            settled.append(Settled(line, balance, crossed))
        to_the_end(partial(self._change, balances, {}, ended, (idempotency_key, settled)))
        return settled

    def _change(
        self,
        balances: Mapping[Account, Balance],
        held: Mapping[str, _HeldAmount],
        ended: Iterable[str] = (),
        answered: tuple[IdempotencyKey | None, list[Settled]] | None = None,
    ) -> None:
        """Figures are absolute, so that what a Ctrl-C interrupts and is done again is done once."""
        self._balances.update(balances)
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
                self._balances.pop(account, None)
                del self._ends[account]
        return number

    def count_refusal(self, account: Account) -> None:
        """Note that a call was refused."""
        with self._lock:
            balance = self._balances[account]
            self._balances[account] = balance._replace(refusals=balance.refusals + 1)

    def read(self, budgets: Iterable[Budget], starts: Sequence[datetime]) -> dict[Account, Balance]:
        """The lines of these budgets in the periods that begin at these moments."""
        names = {budget.name for budget in budgets}
        with self._lock:
            return {
                account: balance
                for account, balance in self._balances.items()
                if account.budget in names and account.period_start in starts
            }

    def close(self) -> None:
        """Nothing is open."""


_ledgers: weakref.WeakSet[MemoryLedger] = weakref.WeakSet()


def _renew_all() -> None:
    for ledger in list(_ledgers):
        ledger.renew()


os.register_at_fork(after_in_child=_renew_all)
