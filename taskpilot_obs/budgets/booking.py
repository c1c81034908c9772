"""Books what finished LLM calls took, gives the alerts, and shows where budgets stand. Never on a caller's thread."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Final, Protocol

from taskpilot_obs import semconv
from taskpilot_obs.budgets.alerts import alerts_of
from taskpilot_obs.budgets.control import WHERE, Control
from taskpilot_obs.budgets.ledger import Account, Booking, Claim, Settled, Standing
from taskpilot_obs.budgets.model import Call, smallest
from taskpilot_obs.budgets.outbox import Outbox
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.guarded import guarded, log_failure, to_the_end
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Status

if TYPE_CHECKING:
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.records import Record
    from taskpilot_obs.semconv import Metric

logger = logging.getLogger("taskpilot_obs")

RESERVATION: Final = "budget_reservation"
"""The attribute of a call whose reservation was made by somebody else, who knew that it would come."""
REFRESH_S: Final = 5.0
"""How often the figures of a shared ledger are read again: other processes spend as well."""


class Gauges(Protocol):
    """Where the figures of budgets are shown."""

    def set_gauge(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Set one."""

    def book(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter."""


class _Finished:
    """The finished calls of a batch on their way to the outbox; what is set is not set again."""

    __slots__ = ("bookings", "calls", "claims", "holds", "unrecorded")

    def __init__(self) -> None:
        self.calls: list[Invocation] = []
        self.unrecorded: list[tuple[str, bool]] = []
        """Reservations whose calls are over, and whether they count as billed."""
        self.holds: Iterator[str] | None = None
        self.claims: list[tuple[Claim, ...]] = []
        """What was set aside for each call, and then for each that nobody recorded."""
        self.bookings: Iterator[Booking] | None = None


class Book:
    """The exporter that settles finished calls.

    In memory where the ledger is of this process; behind `Batched` where the ledger has a store, which is also read
    again every few seconds, on a thread of its own.
    """

    reports = True
    """Booking makes records of its own: alerts."""

    def __init__(self, control: Control, gauges: Gauges | None) -> None:
        self._control = control
        self._gauges = gauges
        self._outbox = Outbox(control, self._tell)
        self._given_up: deque[tuple[str, bool]] = deque()
        self._tops: dict[str, tuple[datetime, Standing]] = {}
        """Of each budget the account that is nearest to its limit."""
        self._lock = threading.RLock()
        self._refreshed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        _books.add(self)
        self.introduce()
        if control.ledger.blocking:
            self._start()

    def introduce(self) -> None:
        """Let the series of every budget exist before its first call."""
        for budget in self._control.budgets:
            if self._gauges is not None:
                self._gauges.book(semconv.BUDGET_REFUSALS, (budget.name, budget.period), 0)
        if not self._control.ledger.blocking:
            self.refresh()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="taskpilot_obs-budgets", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends: nobody reads the figures any more
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            with guarded(WHERE, self._control.tally):
                self.refresh()
            if self._stop.wait(REFRESH_S):
                return

    # --- what the pipeline calls -------------------------------------------------------------------------------------

    def export(self, batch: Sequence[Record], /) -> None:
        """Book the finished LLM calls of a batch. What cannot be booked now waits, and is tried again."""
        finished = _Finished()
        to_the_end(lambda: self._export(batch, finished))

    def _export(self, batch: Sequence[Record], finished: _Finished) -> None:
        if self._thread is None and self._control.ledger.blocking:
            self._start()
        with self._lock:
            self._take(batch, finished)
            self._outbox.send()

    def _take(self, batch: Sequence[Record], finished: _Finished) -> None:
        """From the batch into the outbox. Done again it goes on: a move is one call of C, which no Ctrl-C can halve."""
        control = self._control
        if finished.holds is None:
            finished.calls = [
                each for each in batch if isinstance(each, Invocation) and each.operation in LLM_OPERATIONS
            ]
            finished.unrecorded.extend(starmap(self._given_up.popleft, repeat((), len(self._given_up))))
            holds = [*map(_hold_of, finished.calls), *(hold for hold, _ in finished.unrecorded)]
            finished.holds = iter(holds)
        finished.claims.extend(map(control.held.pop, finished.holds, repeat(())))
        if finished.bookings is None:
            finished.bookings = iter(self._bookings_of(finished))
        self._outbox.put(finished.bookings)

    def tick(self) -> None:
        """Between batches, from the drainer: a new period begins, and reservations end, though no call does."""
        if self._given_up and not self._control.ledger.blocking:
            self.export(())
        if time.monotonic() - self._refreshed > 1.0 and not self._control.ledger.blocking:
            self._refreshed = time.monotonic()
            self.refresh()

    def flush(self, timeout_s: float) -> bool:
        """Book what waits; False where the store is away."""
        del timeout_s
        with self._lock:
            self._outbox.send()
            return not self._outbox

    def shutdown(self, timeout_s: float = 0.0) -> None:
        """Book what can be booked, and read no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self.flush(timeout_s)
        if self._outbox:
            logger.error("taskpilot_obs: %d bookings of budgets are lost: their store is away", len(self._outbox))
        self._control.ledger.close()

    def renew(self) -> None:
        """In a forked child: what waits, and what is held, is the parent's to book."""
        self._lock = threading.RLock()
        self._outbox.renew()
        self._given_up.clear()
        self._control.held.clear()
        self._stop = threading.Event()
        self._thread = None

    # --- booking -----------------------------------------------------------------------------------------------------

    def _bookings_of(self, finished: _Finished) -> list[Booking]:
        guard = guarded(WHERE, self._control.tally)
        found: list[Booking] = []
        claims = iter(finished.claims)
        for record, held in zip(finished.calls, claims, strict=False):
            with guard:
                found += self._bookings(record, held)
        for (hold, billed), held in zip(finished.unrecorded, claims, strict=True):
            found += [Booking(claim if billed else claim._replace(amount=0), hold) for claim in held]
        return found

    def _bookings(self, record: Invocation, held: Sequence[Claim]) -> list[Booking]:
        control = self._control
        hold = _hold_of(record)
        bookings = [Booking(claim._replace(amount=self._taken(record, claim)), hold) for claim in held]
        call = _call_of(record)
        reserved = {claim.budget.name for claim in held}
        for budget in control.budgets:
            amount = real(record, budget) if budget.name not in reserved else None
            scope_key = budget.scope_key(call) if amount else None
            if amount and scope_key is not None:
                window = control.windows.at(budget, record.start_unix_ns)
                account = Account(budget.name, scope_key, window.start)
                bookings.append(Booking(Claim(budget, account, window, amount)))
        return bookings

    def _taken(self, record: Invocation, claim: Claim) -> int:
        """What a call took; where nobody knows, what was set aside for it, for it may well have been billed."""
        amount = real(record, claim.budget)
        return claim.amount if amount is None else amount

    def end_unrecorded(self, hold: str, *, billed: bool) -> None:
        """A reservation whose call is over. Where no record of it comes, what was set aside counts as spent."""
        self._given_up.append((hold, billed))

    def _tell(self, settled: Settled) -> None:
        self._show_if_top(settled.claim.budget, settled.claim.account, settled.standing)
        for decision in alerts_of(settled, self._control.now()):
            self._control.report(decision)

    # --- showing -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """End what expired, write what waits, and show where every budget stands now."""
        control = self._control
        if not control.budgets:
            return
        now = control.now()
        try:
            control.ledger.release_expired(control.moment())
            starts = {budget.name: control.windows.at(budget, now).start for budget in control.budgets}
            found = control.ledger.read(control.budgets, list(set(starts.values())))
        except StoreError as error:
            log_failure(WHERE, error)
            return
        with self._lock:
            self._tops = {}
            for budget in control.budgets:
                self._show_if_top(budget, Account(budget.name, "", starts[budget.name]), Standing())
                for account, line in found.items():
                    if account.budget == budget.name:
                        self._show_if_top(budget, account, line)
            self._outbox.send()

    def _show_if_top(self, budget: Budget, account: Account, line: Standing) -> None:
        start, top = self._tops.get(budget.name, (account.period_start, line))
        newer = account.period_start > start
        if newer or (account.period_start == start and line.spent >= top.spent):
            self._tops[budget.name] = (account.period_start, line)
            if self._gauges is not None:
                self._show(self._gauges, budget, line)

    def _show(self, gauges: Gauges, budget: Budget, line: Standing) -> None:
        labels = (budget.name, budget.period)
        gauges.set_gauge(semconv.BUDGET_USED_RATIO, labels, line.spent / budget.limit)
        end = budget.window(self._tops[budget.name][0]).end
        if end is not None:
            gauges.set_gauge(semconv.BUDGET_RESETS, labels, end.timestamp())
        if budget.unit == "usd":
            gauges.set_gauge(semconv.BUDGET_LIMIT, labels, float(budget.amount(budget.limit)))
            gauges.set_gauge(semconv.BUDGET_SPENT, labels, float(budget.amount(line.spent)))
            gauges.set_gauge(semconv.BUDGET_RESERVED, labels, float(budget.amount(line.reserved)))


def real(record: Invocation, budget: Budget) -> int | None:
    """What a finished call took, in a budget's smallest unit; None where nobody knows."""
    if budget.unit == "usd":
        if record.cost is not None:
            return smallest(record.cost)
        return None if record.is_unpriced else 0
    usage = record.usage
    if usage is None:
        free = record.cached or record.status in (Status.ERROR, Status.BLOCKED)
        return 0 if free else None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def _hold_of(record: Invocation) -> str:
    return str(record.attributes.get(RESERVATION, record.invocation_id))


def _call_of(record: Invocation) -> Call:
    return Call(
        record.tenant,
        record.agent,
        record.workflow,
        record.request_model,
        record.provider,
        record.user,
        record.response_model,
    )


_books: weakref.WeakSet[Book] = weakref.WeakSet()


def _renew_all() -> None:
    for book in list(_books):
        book.renew()


os.register_at_fork(after_in_child=_renew_all)
