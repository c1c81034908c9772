"""Books what finished LLM calls took, gives the alerts, and shows where budgets stand. Never on a caller's thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Final, Protocol

from taskpilot_obs import semconv
from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs._support.guarded import guarded, log_failure, run_to_completion
from taskpilot_obs.budgets.admission import COMPONENT, AdmissionController
from taskpilot_obs.budgets.alerts import alerts_of
from taskpilot_obs.budgets.ledger import Account, Balance, Charge, ReservationLine, Settled
from taskpilot_obs.budgets.model import CallScope, to_pico_usd
from taskpilot_obs.budgets.outbox import Outbox
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Pricing

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

    __slots__ = ("calls", "charges", "lines", "reservation_ids", "unrecorded")

    def __init__(self) -> None:
        self.calls: list[Invocation] = []
        self.unrecorded: list[tuple[str, bool]] = []
        """Reservations whose calls are over, and whether they count as billed."""
        self.reservation_ids: Iterator[str] | None = None
        self.lines: list[tuple[ReservationLine, ...]] = []
        """What was set aside for each call, and then for each that nobody recorded."""
        self.charges: Iterator[Charge] | None = None


class Settler:
    """The exporter that settles finished calls.

    In memory where the ledger is of this process; behind `Batched` where the ledger has a store, which is also read
    again every few seconds, on a thread of its own.
    """

    reports = True
    """Booking makes records of its own: alerts."""

    def __init__(self, admission: AdmissionController, gauges: Gauges | None) -> None:
        self._admission = admission
        self._gauges = gauges
        self._outbox = Outbox(admission, self._tell)
        self._given_up: deque[tuple[str, bool]] = deque()
        self._tops: dict[str, tuple[datetime, Balance]] = {}
        """Of each budget the account that is nearest to its limit."""
        self._lock = threading.RLock()
        self._refreshed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        renew_in_child(self)
        self.introduce()
        if admission.ledger.blocking:
            self._start()

    def introduce(self) -> None:
        """Let the series of every budget exist before its first call."""
        for budget in self._admission.budgets:
            if self._gauges is not None:
                self._gauges.book(semconv.BUDGET_REFUSALS, (budget.name, budget.period), 0)
        if not self._admission.ledger.blocking:
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
            with guarded(COMPONENT, self._admission.counters):
                self.refresh()
            if self._stop.wait(REFRESH_S):
                return

    # --- what the pipeline calls -------------------------------------------------------------------------------------

    def export(self, batch: Sequence[Record], /) -> None:
        """Book the finished LLM calls of a batch. What cannot be booked now waits, and is tried again."""
        finished = _Finished()
        run_to_completion(lambda: self._export(batch, finished))

    def _export(self, batch: Sequence[Record], finished: _Finished) -> None:
        if self._thread is None and self._admission.ledger.blocking:
            self._start()
        with self._lock:
            self._take(batch, finished)
            self._outbox.send()

    def _take(self, batch: Sequence[Record], finished: _Finished) -> None:
        """From the batch into the outbox. Done again it goes on: a move is one call of C, which no Ctrl-C can halve."""
        admission = self._admission
        if finished.reservation_ids is None:
            finished.calls = [
                each for each in batch if isinstance(each, Invocation) and each.operation in LLM_OPERATIONS
            ]
            finished.unrecorded.extend(starmap(self._given_up.popleft, repeat((), len(self._given_up))))
            reservation_ids = [
                *map(_reservation_id_of, finished.calls),
                *(reservation_id for reservation_id, _ in finished.unrecorded),
            ]
            finished.reservation_ids = iter(reservation_ids)
        finished.lines.extend(map(admission.held.pop, finished.reservation_ids, repeat(())))
        if finished.charges is None:
            finished.charges = iter(self._charges_of(finished))
        self._outbox.put(finished.charges)

    def tick(self) -> None:
        """Between batches, from the drainer: a new period begins, and reservations end, though no call does."""
        if self._given_up and not self._admission.ledger.blocking:
            self.export(())
        if time.monotonic() - self._refreshed > 1.0 and not self._admission.ledger.blocking:
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
        self._admission.ledger.close()

    def after_fork(self) -> None:
        """In a forked child: what waits, and what is held, is the parent's to book."""
        self._lock = threading.RLock()
        self._outbox.renew()
        self._given_up.clear()
        self._admission.held.clear()
        self._stop = threading.Event()
        self._thread = None

    # --- booking -----------------------------------------------------------------------------------------------------

    def _charges_of(self, finished: _Finished) -> list[Charge]:
        guard = guarded(COMPONENT, self._admission.counters)
        found: list[Charge] = []
        lines = iter(finished.lines)
        for record, held in zip(finished.calls, lines, strict=False):
            with guard:
                found += self._charges(record, held)
        for (reservation_id, billed), held in zip(finished.unrecorded, lines, strict=True):
            found += [Charge(line if billed else line._replace(amount=0), reservation_id) for line in held]
        return found

    def _charges(self, record: Invocation, held: Sequence[ReservationLine]) -> list[Charge]:
        admission = self._admission
        reservation_id = _reservation_id_of(record)
        charges = [Charge(line._replace(amount=self._taken(record, line)), reservation_id) for line in held]
        call = _scope_of(record)
        reserved = {line.budget.name for line in held}
        for budget in admission.budgets:
            amount = actual_amount(record, budget) if budget.name not in reserved else None
            scope_key = budget.scope_key(call) if amount else None
            if amount and scope_key is not None:
                window = admission.windows.at(budget, record.start_unix_ns)
                account = Account(budget.name, scope_key, window.start)
                charges.append(Charge(ReservationLine(budget, account, window, amount)))
        return charges

    def _taken(self, record: Invocation, line: ReservationLine) -> int:
        """What a call took; where nobody knows, what was set aside for it, for it may well have been billed."""
        amount = actual_amount(record, line.budget)
        return line.amount if amount is None else amount

    def end_unrecorded(self, reservation_id: str, *, billed: bool) -> None:
        """A reservation whose call is over. Where no record of it comes, what was set aside counts as spent."""
        self._given_up.append((reservation_id, billed))

    def _tell(self, settled: Settled) -> None:
        self._show_if_top(settled.line.budget, settled.line.account, settled.balance)
        for decision in alerts_of(settled, self._admission.now()):
            self._admission.emit(decision)

    # --- showing -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """End what expired, write what waits, and show where every budget stands now."""
        admission = self._admission
        if not admission.budgets:
            return
        now = admission.now()
        try:
            admission.ledger.release_expired(admission.utc_now())
            starts = {budget.name: admission.windows.at(budget, now).start for budget in admission.budgets}
            found = admission.ledger.read(admission.budgets, list(set(starts.values())))
        except StoreError as error:
            log_failure(COMPONENT, error)
            return
        with self._lock:
            self._tops = {}
            for budget in admission.budgets:
                self._show_if_top(budget, Account(budget.name, "", starts[budget.name]), Balance())
                for account, balance in found.items():
                    if account.budget == budget.name:
                        self._show_if_top(budget, account, balance)
            self._outbox.send()

    def _show_if_top(self, budget: Budget, account: Account, balance: Balance) -> None:
        start, top = self._tops.get(budget.name, (account.period_start, balance))
        newer = account.period_start > start
        if newer or (account.period_start == start and balance.spent >= top.spent):
            self._tops[budget.name] = (account.period_start, balance)
            if self._gauges is not None:
                self._show(self._gauges, budget, balance)

    def _show(self, gauges: Gauges, budget: Budget, balance: Balance) -> None:
        labels = (budget.name, budget.period)
        gauges.set_gauge(semconv.BUDGET_USED_RATIO, labels, balance.spent / budget.limit)
        end = budget.window(self._tops[budget.name][0]).end
        if end is not None:
            gauges.set_gauge(semconv.BUDGET_RESETS, labels, end.timestamp())
        if budget.unit == "usd":
            gauges.set_gauge(semconv.BUDGET_LIMIT, labels, float(budget.amount(budget.limit)))
            gauges.set_gauge(semconv.BUDGET_SPENT, labels, float(budget.amount(balance.spent)))
            gauges.set_gauge(semconv.BUDGET_RESERVED, labels, float(budget.amount(balance.reserved)))


def actual_amount(record: Invocation, budget: Budget) -> int | None:
    """What a finished call took, in a budget's smallest unit; None where nobody knows."""
    if budget.unit == "usd":
        if record.cost is not None:
            return to_pico_usd(record.cost)
        return None if record.is_unpriced else 0
    usage = record.usage
    if usage is None:
        return 0 if record.pricing is Pricing.FREE else None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def _reservation_id_of(record: Invocation) -> str:
    return str(record.attributes.get(RESERVATION, record.invocation_id))


def _scope_of(record: Invocation) -> CallScope:
    return CallScope(
        record.tenant,
        record.agent,
        record.workflow,
        record.request_model,
        record.provider,
        record.user,
        record.response_model,
    )
