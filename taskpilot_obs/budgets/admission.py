"""Budgets at work: asked before an LLM call, booked after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs._support.guarded import guarded, log_failure
from taskpilot_obs.budgets.alerts import failure_of, refusal_of
from taskpilot_obs.budgets.estimates import CallEstimate, estimate_call
from taskpilot_obs.budgets.ledger import Account, Charge, Ledger, Refusal, ReservationLine
from taskpilot_obs.budgets.model import Budget, CallScope, Windows, to_pico_usd
from taskpilot_obs.exceptions import (
    BudgetExceededError,
    BudgetUnavailableError,
    ConfigurationError,
    RefusedError,
    StoreError,
)
from taskpilot_obs.records import Origin

if TYPE_CHECKING:
    from taskpilot_obs._recording.llm_invocation import LlmInvocation
    from taskpilot_obs._support.clock import Clock
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.records import Record

COMPONENT: Final = "budgets"
RESERVATION_S: Final = 900.0
"""How long a reservation lasts that nobody settles: its process is dead, or its record was lost."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_PRICE: Final = "no price is known for the model"
_NO_STORE: Final = "the store of the budgets cannot be asked"


class AdmissionRequest(NamedTuple):
    """One question: may this call start?"""

    reservation_id: str
    call: CallScope
    estimate: CallEstimate
    origin: Origin
    at_unix_ns: int


class BudgetDeps(NamedTuple):
    """What budgets need of their recorder."""

    clock: Clock
    prices: PriceTable
    counters: InternalCounters
    emit: Callable[[Record], None]
    """Takes decisions."""


class AdmissionController:
    """The budgets of one recorder.

    Args:
        means: clock, prices and where decisions go.
        ledger: where budgets are kept.
        reservation_s: how long a reservation lasts that nobody settles.
    """

    def __init__(self, means: BudgetDeps, ledger: Ledger, *, reservation_s: float = RESERVATION_S) -> None:
        self._clock, self._prices, self.counters, self.emit = means
        self.ledger = ledger
        self.budgets: tuple[Budget, ...] = ()
        self.enforced: tuple[Budget, ...] = ()
        self.shadows: tuple[Budget, ...] = ()
        self.windows = Windows()
        self.held: dict[str, tuple[ReservationLine, ...]] = {}
        """What calls of this process hold, until their end is booked."""
        self.catch_up: Callable[[], object] = lambda: None
        """Books what has ended and waits in a queue; set by whoever owns the queue."""
        self._reservation = timedelta(seconds=reservation_s)

    def add(self, budget: Budget) -> None:
        """Watch one more budget; the same one again changes nothing.

        Raises:
            ConfigurationError: another budget has its name.
        """
        same = next((known for known in self.budgets if known.name == budget.name), None)
        if same is not None and same != budget:
            raise ConfigurationError(f"budgets: two of the name {budget.name!r}; a name stands for one limit")
        if same is None:
            self.budgets = (*self.budgets, budget)
            self.enforced = tuple(each for each in self.budgets if each.action == "enforce")
            self.shadows = tuple(each for each in self.budgets if each.action == "shadow")

    @property
    def asks(self) -> bool:
        """Whether calls must be asked about; alert budgets cost the caller nothing."""
        return bool(self.enforced or self.shadows)

    def now(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return self._clock.unix_ns(self._clock.now())

    def utc_now(self) -> datetime:
        """The present time, in UTC."""
        return utc_from_unix_ns(self.now())

    # --- before a call -----------------------------------------------------------------------------------------------

    def before(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Reserve for a call that begins.

        Raises:
            BudgetExceededError: a budget in `enforce` mode has no room for it.
            BudgetUnavailableError: one that is closed then cannot ask its store, or knows no price.
        """
        request = None
        with guarded(COMPONENT, self.counters):
            request = self._request(run, args, kwargs)
        if request is not None and request.reservation_id not in self.held:
            self.ask(request)

    async def before_async(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """The same, in an event loop that goes on meanwhile."""
        request = None
        with guarded(COMPONENT, self.counters):
            request = self._request(run, args, kwargs)
        if request is not None and request.reservation_id not in self.held:
            await self.ask_async(request)

    def _request(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> AdmissionRequest:
        scope = run.scope
        tenant, user, session = (None, None, None) if scope is None else scope[1:4]
        workflow, agent = run.lineage()
        call = CallScope(tenant, agent, workflow, run.request_model, run.provider, user)
        origin = Origin(run.request_id, run.invocation_id, None, workflow, agent, *run.span_ids, tenant, user, session)
        return AdmissionRequest(run.invocation_id, call, estimate_call(args, kwargs), origin, self.now())

    def ask(self, request: AdmissionRequest) -> None:
        """Reserve, or raise the refusal. See `before`."""
        error: RefusedError | None = None
        with guarded(COMPONENT, self.counters):
            error = self._judge(request)
        if error is not None:
            raise error

    async def ask_async(self, request: AdmissionRequest) -> None:
        """The same, in an event loop: whatever may wait does so in a thread."""
        if self.ledger.blocking or not self._prices.ready or not self._has_room(request):
            await asyncio.to_thread(self.ask, request)

    def _has_room(self, request: AdmissionRequest) -> bool:
        """Reserve where that takes no wait; whether it is done."""
        with guarded(COMPONENT, self.counters):
            lines, unpriced = self._lines_of(request, self.enforced)
            if not unpriced and self._reserve(request, lines) is None:
                self._ask_shadows(request)
                return True
        return False

    def _judge(self, request: AdmissionRequest) -> RefusedError | None:
        lines, unpriced = self._lines_of(request, self.enforced)
        for line in unpriced:
            error = self._unjudged(line, request, _NO_PRICE, line.budget.when_unpriced)
            if error is not None:
                return error
        try:
            refusal = self._reserve(request, lines)
            if refusal is not None and not refusal.is_final:
                self.catch_up()
                refusal = self._reserve(request, lines)
        except StoreError as failure:
            log_failure(COMPONENT, failure)
            return self._without_store(request, lines)
        if refusal is not None:
            return self._refusal_error(request, refusal)
        self._ask_shadows(request)
        return None

    def _lines_of(
        self, request: AdmissionRequest, budgets: Sequence[Budget]
    ) -> tuple[list[ReservationLine], list[ReservationLine]]:
        """What the call may take of each budget that it falls under; and those of them where nobody knows."""
        lines: list[ReservationLine] = []
        unpriced: list[ReservationLine] = []
        for budget in budgets:
            scope_key = budget.scope_key(request.call)
            if scope_key is None:
                continue
            window = self.windows.at(budget, request.at_unix_ns)
            amount = self._amount(budget, request)
            lines.append(ReservationLine(budget, Account(budget.name, scope_key, window.start), window, amount or 0))
            if amount is None:
                unpriced.append(lines[-1])
        return lines, unpriced

    def _amount(self, budget: Budget, request: AdmissionRequest) -> int | None:
        """What a call may take at most; None where nobody knows the price."""
        if budget.unit == "tokens":
            return request.estimate.tokens(budget.max_output_tokens)
        price = self._prices.price(
            request.estimate.usage(budget.max_output_tokens),
            provider=request.call.provider,
            request_model=request.call.model,
            response_model=None,
            at_unix_ns=request.at_unix_ns,
        )
        return None if price.cost is None else to_pico_usd(price.cost)

    def _reserve(self, request: AdmissionRequest, lines: Sequence[ReservationLine]) -> Refusal | None:
        if not lines:
            return None
        now = utc_from_unix_ns(request.at_unix_ns)
        self.held[request.reservation_id] = (*self.held.get(request.reservation_id, ()), *lines)
        try:
            refusal = self.ledger.reserve(request.reservation_id, lines, now, now + self._reservation)
        except StoreError:
            self._forget(request.reservation_id, lines)
            raise
        if refusal is not None:
            self._forget(request.reservation_id, lines)
        elif request.reservation_id not in self.held:  # cancelled meanwhile, and booked already
            self.ledger.settle([Charge(line._replace(amount=0), request.reservation_id) for line in lines], now)
        return refusal

    def _forget(self, reservation_id: str, lines: Sequence[ReservationLine]) -> None:
        rest = tuple(line for line in self.held.pop(reservation_id, ()) if line not in lines)
        if rest:
            self.held[reservation_id] = rest

    def _ask_shadows(self, request: AdmissionRequest) -> None:
        """Each for itself: what one of them would refuse takes nothing from the others."""
        for budget in self.shadows:
            lines, _ = self._lines_of(request, (budget,))
            try:
                refusal = self._reserve(request, lines)
            except StoreError as failure:
                log_failure(COMPONENT, failure)
                continue
            if refusal is not None:
                self.emit(refusal_of(refusal, request.origin, request.at_unix_ns, refused=False))

    def _refusal_error(self, request: AdmissionRequest, refusal: Refusal) -> BudgetExceededError:
        line, balance = refusal
        budget = line.budget
        self.emit(refusal_of(refusal, request.origin, request.at_unix_ns, refused=True))
        with guarded(COMPONENT, self.counters):
            self.ledger.count_refusal(line.account)
        return BudgetExceededError(
            budget.name,
            limit=budget.amount(budget.limit),
            spent=budget.amount(balance.spent),
            reserved=budget.amount(balance.reserved),
            resets_at=line.window.end,
            request_id=request.origin.request_id,
        )

    def _without_store(self, request: AdmissionRequest, lines: Sequence[ReservationLine]) -> RefusedError | None:
        for line in lines:
            error = self._unjudged(line, request, _NO_STORE, line.budget.when_store_down)
            if error is not None:
                return error
        return None

    def _unjudged(
        self, line: ReservationLine, request: AdmissionRequest, reason: str, when: str
    ) -> RefusedError | None:
        """A call that cannot be judged passes, or is refused where the budget is closed then."""
        refused = when == "closed" and line.budget.action == "enforce"
        self.emit(failure_of(line, request.origin, request.at_unix_ns, reason, refused=refused))
        return (
            BudgetUnavailableError(line.budget.name, reason, request_id=request.origin.request_id) if refused else None
        )


def utc_from_unix_ns(unix_ns: int) -> datetime:
    """The time so many nanoseconds after the Unix epoch, in UTC."""
    return _EPOCH + timedelta(microseconds=unix_ns // 1_000)
