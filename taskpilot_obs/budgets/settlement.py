"""Books what finished LLM calls took, gives the alerts, and exposes the figures of budgets. Runs in the drainer.

Records and the ends of reservations travel in one queue, the pipeline's, so that a call's record comes before the end
of its reservation. Charges then wait in the outbox. A ledger in memory takes them at once; one with a store gets them
from a worker, so that the drainer never waits for a database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from taskpilot_obs import semconv
from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs._support.guarded import guarded, log_failure, run_to_completion
from taskpilot_obs.budgets.admission import COMPONENT, AdmissionController
from taskpilot_obs.budgets.admitted import Admitted
from taskpilot_obs.budgets.alerts import alerts_of
from taskpilot_obs.budgets.ledger import UNUSED, Balance, BudgetAccount, Charge, ReservationLine, Settled
from taskpilot_obs.budgets.model import CallScope, to_pico_usd
from taskpilot_obs.budgets.outbox import Outbox
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Pricing, Status

if TYPE_CHECKING:
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.records import Record
    from taskpilot_obs.semconv import Metric

logger = logging.getLogger("taskpilot_obs")

REFRESH_S: Final = 5.0
"""How often the figures of a shared ledger are read again: other processes spend as well."""
_LEFT: Final = frozenset({Status.ABANDONED, Status.CANCELLED})
"""How a stream ends whose reader has left."""


class Gauges(Protocol):
    """Where the figures of budgets are exposed."""

    def set_gauge(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge."""

    def book(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter."""


class _SettlementBatch:
    """One batch on its way to the outbox; what is set is not set again, so that an interrupted batch can go on."""

    __slots__ = ("charges", "ended", "settled")

    def __init__(self) -> None:
        self.ended: list[tuple[str, bool]] = []
        """Reservations of blocks that are over, and whether their calls count as billed."""
        self.charges: Iterator[Charge] | None = None
        self.settled: list[str] = []
        """Reservations that end with these charges."""


class ReservationEnd(NamedTuple):
    """The end of a reservation that no record ends, behind the records of its calls in the pipeline's queue."""

    settler: Settler
    reservation_id: str
    billed: bool
    """Whether what was reserved counts as spent where no call was recorded."""

    def droppable(self) -> bool:
        """Never: what was reserved would stay reserved."""
        return False

    def freeze(self, records: list[Record]) -> None:
        """End it, behind the calls whose records the drainer holds."""
        self.settler.end_block(self.reservation_id, records, billed=self.billed)


class Settler:
    """The exporter that settles finished calls, in the drainer.

    Where the ledger has a store, a worker (`LedgerWorker`) sends the charges, and a thread reads the figures again
    every few seconds.
    """

    def __init__(self, admission: AdmissionController, gauges: Gauges | None) -> None:
        self._admission = admission
        self._gauges = gauges
        self.outbox = Outbox(admission, self._tell)
        self._ended: deque[tuple[str, bool]] = deque()
        self._tops: dict[str, tuple[datetime, Balance]] = {}
        """Of each budget the account that is nearest to its limit."""
        self._other_limits: dict[str, tuple[str, ...]] = {}
        """Of budgets that processes keep under different limits: those of the others."""
        self._sending = threading.RLock()
        """Held while the outbox is sent. The drainer never takes it where the ledger does I/O."""
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
        except RuntimeError:  # the interpreter ends: nothing reads the figures any more
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            with guarded(COMPONENT, self._admission.counters):
                self.refresh()
            if self._stop.wait(min(REFRESH_S, self._admission.renew_every_s)):
                return

    # --- what the pipeline calls -------------------------------------------------------------------------------------

    def export(self, batch: Sequence[Record], /) -> None:
        """Turn the finished LLM calls of a batch into charges. What cannot be booked now waits, and is tried again."""
        state, ended = _SettlementBatch(), len(self._ended)
        run_to_completion(lambda: self._settle(batch, state, ended))

    def _settle(self, batch: Sequence[Record], state: _SettlementBatch, ended: int) -> None:
        """From the batch into the outbox. Each step can be done again: a move is one call of C."""
        if self._thread is None and self._admission.ledger.blocking:
            self._start()
        state.ended.extend(starmap(self._ended.popleft, repeat((), min(ended - len(state.ended), len(self._ended)))))
        if state.charges is None:
            state.charges = iter(self._charges_of(batch, state))
        self.outbox.put(state.charges)
        for reservation_id in state.settled:
            self._admission.held.pop(reservation_id, None)
        if not self._admission.ledger.blocking:
            self.send()

    def send(self) -> bool:
        """Book what waits; returns False where some of it cannot be booked now."""
        with self._sending:
            self.outbox.send()
            return not self.outbox

    def tick(self) -> None:
        """Between batches: a new period begins, and reservations end, though no call does."""
        if time.monotonic() - self._refreshed > 1.0 and not self._admission.ledger.blocking:
            self._refreshed = time.monotonic()
            self.refresh()

    def stop(self, timeout_s: float) -> None:
        """Read the figures no more."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def shutdown(self) -> None:
        """Count what could not be booked as lost, and close the ledger."""
        self._admission.is_closed = True
        self.stop(0.0)
        self.export(())
        if not self._admission.ledger.blocking:
            self.send()
        lost = len(self.outbox)
        if lost:
            self._admission.counters.add(semconv.INTERNAL_ERRORS, (COMPONENT,), lost)
            logger.error(
                "taskpilot_obs: lost %d budget charges: store unreachable [%s]",
                lost,
                semconv.WarningCode.BUDGET_CHARGES_LOST,
            )
        self._admission.ledger.close()

    def after_fork(self) -> None:
        """In a forked child: what waits, and what is reserved, is the parent's to book."""
        self._sending = threading.RLock()
        self.outbox.renew()
        self._ended.clear()
        self._admission.held.clear()
        self._stop = threading.Event()
        self._thread = None

    # --- charges -----------------------------------------------------------------------------------------------------

    def _charges_of(self, batch: Sequence[Record], state: _SettlementBatch) -> list[Charge]:
        """The charges of a batch. Changes nothing that a second try would find changed."""
        guard = guarded(COMPONENT, self._admission.counters)
        found: list[Charge] = []
        settled: dict[str, None] = {}
        for record in batch:
            if isinstance(record, Invocation) and record.operation in LLM_OPERATIONS:
                with guard:
                    found += self._charges(record, settled)
        for reservation_id, billed in state.ended:
            admitted = self._admission.held.get(reservation_id)
            if admitted is not None and reservation_id not in settled:
                settled[reservation_id] = None
                found += self._end_of(admitted, billed=billed)
        state.settled = list(settled)
        return found

    def _charges(self, record: Invocation, settled: dict[str, None]) -> list[Charge]:
        admission, own = self._admission, record.reservation_id
        admitted = None if own is None or own in settled else admission.held.get(own)
        charges = [] if admitted is None else self._reserved_charges(record, admitted, settled)
        call = CallScope(record.origin, record.request_model, record.provider, record.response_model, admission.source)
        reserved = () if admitted is None else {line.budget.name for line in admitted.lines}
        for budget in admission.budgets:
            amount = actual_amount(record, budget) if budget.name not in reserved else None
            scope_key = budget.scope_key(call) if amount else None
            if amount and scope_key is not None:
                window = admission.windows.at(budget, record.start_unix_ns)
                account = BudgetAccount(budget.name, scope_key, window.start)
                charges.append(Charge(ReservationLine(budget, account, window, amount)))
        return charges

    def _reserved_charges(self, record: Invocation, admitted: Admitted, settled: dict[str, None]) -> list[Charge]:
        """What a call took from the budgets that hold a reservation for it."""
        ends: str | None = admitted.reservation_id
        if admitted.is_block:
            admitted.is_recorded, ends = True, None
        else:
            settled[admitted.reservation_id] = None
        return [self._charge(record, admitted, line, ends) for line in admitted.lines]

    def _charge(self, record: Invocation, admitted: Admitted, line: ReservationLine, ends: str | None) -> Charge:
        """The amount that a call took; where it is unknown, an estimate, because the call may well have been billed."""
        amount = actual_amount(record, line.budget)
        if amount is not None:
            return Charge(line._replace(amount=amount), ends)
        if admitted.assumed_for is None:
            admitted.assumed_for = record.invocation_id
        if admitted.assumed_for != record.invocation_id:
            return Charge(line._replace(amount=0), ends)
        if record.status in _LEFT and record.streaming:
            amount = self._admission.left_amount(admitted, line, record.usage)
            return Charge(line._replace(amount=amount), ends, is_assumed=True)
        return Charge(line, ends, is_assumed=True)

    def _end_of(self, admitted: Admitted, *, billed: bool) -> list[Charge]:
        """The end of a block's reservation: what was reserved counts as spent where no call was recorded."""
        assumed = billed and not admitted.is_recorded
        amounts = [line.amount if assumed else 0 for line in admitted.lines]
        return [
            Charge(line._replace(amount=amount), admitted.reservation_id, assumed)
            for line, amount in zip(admitted.lines, amounts, strict=True)
        ]

    def end_block(self, reservation_id: str, records: Sequence[Record], *, billed: bool) -> None:
        """End the reservation of a block. Called by the drainer, behind the records of the block's calls.

        Args:
            reservation_id: of the block.
            records: what the drainer holds and is about to export, maybe those of the block's calls.
            billed: whether what was reserved counts as spent where no call was recorded.
        """
        self._ended.append((reservation_id, billed))
        if not records:
            self.export(())

    def _tell(self, settled: Settled) -> None:
        self._show_if_top(settled.line.budget, settled.line.account, settled.balance)
        for decision in alerts_of(settled, self._admission.now()):
            self._admission.emit(decision)

    # --- figures -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Renew what runs, end what has expired, write what waits, and expose the figures of every budget."""
        admission = self._admission
        if not admission.budgets:
            return
        now = admission.now()
        try:
            admission.renew()
            admission.ledger.release_expired(admission.utc_now())
            if any(budget.is_rate for budget in admission.budgets):
                admission.ledger.forget_rates(admission.utc_now())
            starts = {budget.name: admission.windows.at(budget, now).start for budget in admission.budgets}
            found = admission.ledger.read(admission.budgets, list(set(starts.values())))
            others = admission.ledger.other_limits(admission.budgets, admission.utc_now())
        except StoreError as error:
            log_failure(COMPONENT, error)
            return
        self._show_other_limits(others)
        with self._sending:
            self._tops = {}
            for budget in admission.budgets:
                self._show_if_top(budget, BudgetAccount(budget.name, "", starts[budget.name]), UNUSED)
                for account, balance in found.items():
                    if account.budget == budget.name:
                        self._show_if_top(budget, account, balance)
            self.outbox.send()

    def _show_other_limits(self, others: Mapping[str, tuple[str, ...]]) -> None:
        """Two limits of one name share one account: each process refuses by its own."""
        for budget in self._admission.budgets:
            limits = others.get(budget.name, ())
            if self._gauges is not None:
                self._gauges.set_gauge(semconv.BUDGET_OTHER_LIMITS, (budget.name, budget.period), len(limits))
            if limits and self._other_limits.get(budget.name) != limits:
                logger.warning(
                    "taskpilot_obs: the store of the budgets has %r with other limits too: %s; what is spent counts "
                    "against all of them. Give each limit a name of its own [%s]",
                    budget.name,
                    ", ".join(limits),
                    semconv.WarningCode.BUDGET_OTHER_LIMITS,
                )
        self._other_limits = dict(others)

    def _show_if_top(self, budget: Budget, account: BudgetAccount, balance: Balance) -> None:
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
            gauges.set_gauge(semconv.BUDGET_ASSUMED, labels, float(budget.amount(balance.assumed)))
            gauges.set_gauge(semconv.BUDGET_RESERVED, labels, float(budget.amount(balance.reserved)))


def actual_amount(record: Invocation, budget: Budget) -> int | None:
    """What a finished call took, in a budget's smallest unit; None where it is unknown."""
    if budget.unit == "requests":
        return 0 if record.status is Status.BLOCKED or record.cached else 1
    if budget.unit == "usd":
        if record.cost is not None:
            return to_pico_usd(record.cost)
        return None if record.is_unpriced else 0
    usage = record.usage
    if usage is None:
        return 0 if record.pricing is Pricing.FREE else None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)
