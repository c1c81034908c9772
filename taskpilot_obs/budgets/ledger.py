"""Defines the ledger of spent and reserved amounts, and the ledger in the memory of one process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple, Protocol

from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs._support.guarded import run_to_completion
from taskpilot_obs.budgets.model import Budget, Window

_KEPT: Final = timedelta(days=1)
"""How long a finished period stays in memory."""


class BudgetAccount(NamedTuple):
    """One line of the ledger: a budget, the tenant (user, …) that it is split by, and a period."""

    budget: str
    scope_key: str
    period_start: datetime


class ReservationLine(NamedTuple):
    """An amount that a call may take from one budget, in the budget's smallest unit."""

    budget: Budget
    account: BudgetAccount
    window: Window
    amount: int


class Balance(NamedTuple):
    """The figures of an account, in its budget's smallest unit."""

    spent: int
    reserved: int
    alerted: int
    """The highest threshold that was alerted in the period, in thousandths of the limit."""
    refusals: int
    assumed: int
    """The part of `spent` that was booked by estimate, because the call's cost is unknown."""


UNUSED: Final = Balance(0, 0, 0, 0, 0)


class Refusal(NamedTuple):
    """The line without room, and the account's figures at that moment."""

    line: ReservationLine
    balance: Balance

    @property
    def is_final(self) -> bool:
        """Whether no settlement or expiry can make room in this period."""
        return self.balance.spent + self.line.amount > self.line.budget.limit

    @property
    def could_fit(self) -> bool:
        """Whether an unused budget would have room for the call."""
        return self.line.amount <= self.line.budget.limit


class Charge(NamedTuple):
    """The amount that a call took from one budget."""

    line: ReservationLine
    reservation_id: str | None = None
    """The reservation that ends with it."""
    is_assumed: bool = False
    """Whether the amount is an estimate."""


class IdempotencyKey(NamedTuple):
    """Identifies a group of charges, so that a ledger recognises a repetition."""

    writer: str
    """Unique to the process, and to each fork of it."""
    number: int
    """Starts at 1 and grows, so that a ledger needs to remember the last one only."""


class Settled(NamedTuple):
    """An account after a charge, and the thresholds that it crossed for the first time in its period."""

    line: ReservationLine
    balance: Balance
    crossed: tuple[int, ...]


class Ledger(Protocol):
    """Keeps the amounts of budgets. Every method is atomic across threads and, with a store, across processes."""

    blocking: bool
    """Whether it does I/O, so that an event loop must not wait for it."""

    def reserve(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> Refusal | None:
        """Reserve all of these amounts, or none if one has no room.

        Raises:
            StoreError: the ledger cannot be reached.
        """

    def renew(self, keys: Sequence[str], expires_at: datetime) -> None:
        """Let these reservations (`reservation_key`) last until then; those that have ended stay ended.

        Raises:
            StoreError: the ledger cannot be reached.
        """

    def settle(
        self, charges: Sequence[Charge], now: datetime, idempotency_key: IdempotencyKey | None = None
    ) -> list[Settled]:
        """Charge what calls took, and end their reservations.

        Charges that are repeated under a key are applied once and get the first answer.

        Raises:
            StoreUnavailableError: the ledger cannot be reached, or its answer was lost: all may be booked, or none.
            StoreError: the ledger refuses; nothing was booked.
        """

    def release_expired(self, now: datetime) -> int:
        """End the reservations that were neither settled nor renewed in time; returns how many."""

    def forget_rates(self, now: datetime) -> int:
        """Delete lines of budgets by the minute and the hour on which nothing is booked any more; returns how many."""

    def count_refusal(self, account: BudgetAccount, exhausted: int = 0) -> bool:
        """Count a refused call.

        Args:
            account: the one that had no room.
            exhausted: the threshold (in thousandths) to note as alerted; 0 for none.

        Returns:
            Whether that threshold had not been alerted in the period.
        """

    def read(self, budgets: Sequence[Budget], starts: Sequence[datetime]) -> dict[BudgetAccount, Balance]:
        """The accounts of these budgets in the periods that begin at these moments."""

    def other_limits(self, budgets: Sequence[Budget], now: datetime) -> Mapping[str, tuple[str, ...]]:
        """The limits, in words, that other processes keep under the names of these budgets.

        Raises:
            StoreError: the ledger cannot be reached.
        """

    def is_same(self, other: Ledger) -> bool:
        """Whether another ledger object keeps the same figures."""

    def close(self) -> None:
        """Close the connections that it opened."""


def reservation_key(reservation_id: str, budget: str) -> str:
    """Names the part of a reservation that one budget holds."""
    return f"{reservation_id}/{budget}"


def crossed_by(budget: Budget, balance: Balance) -> tuple[int, ...]:
    """The reached thresholds without an alert so far."""
    reached = balance.spent * 1_000 // budget.limit
    return tuple(each for each in budget.permilles if balance.alerted < each <= reached)


class _HeldAmount(NamedTuple):
    account: BudgetAccount
    amount: int
    expires_at: datetime


class MemoryLedger:
    """A ledger in memory: it ends with the process, and other processes do not see it.

    Every process then has the whole limit for itself.
    """

    blocking = False

    def __init__(self) -> None:
        self._balances: dict[BudgetAccount, Balance] = {}
        self._ends: dict[BudgetAccount, datetime] = {}
        self._held: OrderedDict[str, _HeldAmount] = OrderedDict()
        self._answered: tuple[IdempotencyKey | None, list[Settled]] = (None, [])
        """The last charges that had a key, and the answer to them."""
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """In a forked child: keep the parent's figures, with a new lock."""
        self._lock = threading.Lock()

    def reserve(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> Refusal | None:
        """Reserve all of these amounts, or none where one has no room."""
        with self._lock:
            balances = self._balances_with(lines)
            if isinstance(balances, Refusal):
                if self._expire(now):
                    balances = self._balances_with(lines)
                if isinstance(balances, Refusal):
                    return balances
            held = {}
            for line in lines:
                key = reservation_key(reservation_id, line.budget.name)
                held[key] = _HeldAmount(line.account, line.amount, expires_at)
            run_to_completion(partial(self._change, balances, held))
        return None

    def _balances_with(self, lines: Sequence[ReservationLine]) -> dict[BudgetAccount, Balance] | Refusal:
        balances = {}
        for line in lines:
            balance = self._balances.get(line.account) or self._balance(line)
            spent, reserved, alerted, refusals, assumed = balance
            reserved += line.amount
            if spent + reserved > line.budget.limit:
                return Refusal(line, balance)
            balances[line.account] = Balance(spent, reserved, alerted, refusals, assumed)
        return balances

    def _balance(self, line: ReservationLine) -> Balance:
        """The balance of a line's account, which is new where there is none."""
        if line.account not in self._balances:
            if line.window.end is not None:
                self._ends[line.account] = line.window.end
            self._balances[line.account] = UNUSED
        return self._balances[line.account]

    def _expire(self, now: datetime) -> int:
        """End what has expired; reservations are kept in the order in which they end."""
        balances: dict[BudgetAccount, Balance] = {}
        ended = []
        for key, held in self._held.items():
            if held.expires_at > now:
                break
            ended.append(key)
            self._give_back(balances, held)
        if ended:
            run_to_completion(partial(self._change, balances, {}, ended))
        return len(ended)

    def _give_back(self, balances: dict[BudgetAccount, Balance], held: _HeldAmount) -> None:
        balance = balances.get(held.account) or self._balances.get(held.account)
        if balance is not None:
            balances[held.account] = balance._replace(reserved=balance.reserved - held.amount)

    def renew(self, keys: Sequence[str], expires_at: datetime) -> None:
        """Let these reservations last until then."""
        with self._lock:
            for key in keys:
                held = self._held.get(key)
                if held is not None:
                    self._held[key] = held._replace(expires_at=expires_at)
                    self._held.move_to_end(key)

    def settle(
        self, charges: Sequence[Charge], now: datetime, idempotency_key: IdempotencyKey | None = None
    ) -> list[Settled]:
        """Book what calls took and end their reservations."""
        with self._lock:
            if idempotency_key is not None and idempotency_key == self._answered[0]:
                return self._answered[1]
            self._expire(now)
            return self._settle(charges, idempotency_key)

    def _settle(self, charges: Sequence[Charge], idempotency_key: IdempotencyKey | None) -> list[Settled]:
        balances: dict[BudgetAccount, Balance] = {}
        ended: dict[str, None] = {}
        settled = []
        for line, reservation_id, is_assumed in charges:
            key = None if reservation_id is None else reservation_key(reservation_id, line.budget.name)
            held = None if key is None or key in ended else self._held.get(key)
            if key is not None and held is not None:
                ended[key] = None
                self._give_back(balances, held)
            spent, reserved, alerted, refusals, assumed = balances.get(line.account) or self._balance(line)
            assumed += line.amount if is_assumed else 0
            balance = Balance(spent + line.amount, reserved, alerted, refusals, assumed)
            crossed = crossed_by(line.budget, balance)
            if crossed:
                balance = balance._replace(alerted=crossed[-1])
            balances[line.account] = balance
            settled.append(Settled(line, balance, crossed))
        run_to_completion(partial(self._change, balances, {}, ended, (idempotency_key, settled)))
        return settled

    def _change(
        self,
        balances: Mapping[BudgetAccount, Balance],
        held: Mapping[str, _HeldAmount],
        ended: Iterable[str] = (),
        answered: tuple[IdempotencyKey | None, list[Settled]] | None = None,
    ) -> None:
        """Set absolute figures, so that a change which a Ctrl-C interrupts can be made again."""
        self._balances.update(balances)
        if held:
            self._held.update(held)
        for key in ended:
            self._held.pop(key, None)
        if answered is not None:
            self._answered = answered

    def forget_rates(self, now: datetime) -> int:  # noqa: ARG002  as `Ledger` has it
        """Nothing: `release_expired` forgets them with all other periods."""
        return 0

    def release_expired(self, now: datetime) -> int:
        """End the reservations that have expired, and forget periods that ended a day ago (an hour for short ones)."""
        with self._lock:
            number = self._expire(now)
            for account, end in list(self._ends.items()):
                if now - end >= min(_KEPT, 60 * (end - account.period_start)):
                    self._balances.pop(account, None)
                    del self._ends[account]
        return number

    def count_refusal(self, account: BudgetAccount, exhausted: int = 0) -> bool:
        """Count a refused call; returns whether the threshold had not been alerted in the period."""
        with self._lock:
            balance = self._balances[account]
            is_new = balance.alerted < exhausted
            alerted = max(balance.alerted, exhausted)
            self._balances[account] = balance._replace(refusals=balance.refusals + 1, alerted=alerted)
        return is_new

    def read(self, budgets: Iterable[Budget], starts: Sequence[datetime]) -> dict[BudgetAccount, Balance]:
        """The accounts of these budgets in the periods that begin at these moments."""
        names = {budget.name for budget in budgets}
        with self._lock:
            return {
                account: balance
                for account, balance in self._balances.items()
                if account.budget in names and account.period_start in starts
            }

    def other_limits(self, budgets: Sequence[Budget], now: datetime) -> Mapping[str, tuple[str, ...]]:  # noqa: ARG002  as `Ledger` has it
        """None: no other process sees this ledger."""
        return {}

    def is_same(self, other: Ledger) -> bool:
        """Whether it is this object."""
        return other is self

    def close(self) -> None:
        """Do nothing, because nothing is open."""
