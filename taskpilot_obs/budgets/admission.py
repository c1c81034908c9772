"""Admits LLM calls: checks that every budget has room, and reserves amounts while the call runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs._support.event_loops import in_event_loop
from taskpilot_obs._support.guarded import guarded, log_failure
from taskpilot_obs.budgets.admitted import AdmissionRequest, Admitted
from taskpilot_obs.budgets.alerts import exhausted_by, failure_of, refusal_of
from taskpilot_obs.budgets.estimates import estimate_any
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, Ledger, Refusal, ReservationLine, reservation_key
from taskpilot_obs.budgets.model import Budget, CallScope, Windows, to_pico_usd
from taskpilot_obs.exceptions import (
    BudgetExceededError,
    BudgetUnavailableError,
    ConfigurationError,
    RefusedError,
    StoreError,
)
from taskpilot_obs.records import NO_USAGE, Origin, Source, Usage

if TYPE_CHECKING:
    from taskpilot_obs._recording.llm_invocation import LlmInvocation
    from taskpilot_obs._support.clock import Clock
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.records import Record

COMPONENT: Final = "budgets"
RESERVATION_S: Final = 900.0
"""How long a reservation lasts unless its process renews it."""
_RENEWALS: Final = 3
"""How many times a reservation is renewed within its duration."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_PRICE: Final = "no price is known for the model"
_NO_WAIT: Final = "the store of the budgets cannot be asked in an event loop that must go on"
_NO_STORE: Final = "the store of the budgets cannot be asked"


class BudgetDeps(NamedTuple):
    """What budgets need of their recorder."""

    clock: Clock
    prices: PriceTable
    counters: InternalCounters
    emit: Callable[[Record], None]
    """Called with each decision."""
    source: Source = Source()
    """Who makes the calls."""


class AdmissionController:
    """The budgets of one recorder.

    Args:
        deps: clock, prices and the receiver of decisions.
        ledger: the ledger of the budgets.
        reservation_s: how long a reservation lasts that its process does not renew.
        enforcing: whether budgets in `enforce` mode refuse; without, they are treated as `shadow`.
    """

    def __init__(
        self, deps: BudgetDeps, ledger: Ledger, *, reservation_s: float = RESERVATION_S, enforcing: bool = True
    ) -> None:
        self._clock, self._prices, self.counters, self.emit, self.source = deps
        self.ledger = ledger
        self.budgets: tuple[Budget, ...] = ()
        self.enforced: tuple[Budget, ...] = ()
        self.shadows: tuple[Budget, ...] = ()
        self.windows = Windows()
        self.held: dict[str, Admitted] = {}
        """The reservations of this process, until their calls are charged."""
        self.is_closed = False
        """Whether nothing settles calls any more, after a shutdown. Calls then reserve nothing: they are compared with
        what was spent, or treated as while the store is away."""
        self.catch_up: Callable[[], object] = lambda: None
        """Charges ended calls that wait in a queue; set by the owner of the queue."""
        self.end_later: Callable[[str, bool], object] = lambda _reservation_id, _billed: None
        """Ends a reservation after the items in a queue; set by the owner of the queue."""
        self._reservation = timedelta(seconds=reservation_s)
        self.renew_every_s = reservation_s / _RENEWALS
        self._renew_at = _EPOCH
        self._enforcing = enforcing

    def add(self, budget: Budget) -> None:
        """Add a budget; adding an equal one again changes nothing.

        Raises:
            ConfigurationError: another budget has its name.
        """
        same = next((known for known in self.budgets if known.name == budget.name), None)
        if same is not None and same != budget:
            raise ConfigurationError(f"budgets: two of the name {budget.name!r}; a name stands for one limit")
        if same is None:
            self.budgets = (*self.budgets, budget)
            refusing = [each for each in self.budgets if each.action == "enforce"]
            self.enforced = tuple(refusing) if self._enforcing else ()
            self.shadows = tuple(each for each in self.budgets if each not in self.enforced and each.action != "alert")

    @property
    def asks(self) -> bool:
        """Whether calls must be admitted; budgets that only alert cost the caller nothing."""
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
            BudgetUnavailableError: a budget that is closed in this case cannot ask its store, or knows no price.
        """
        admitted = self._admitted(run, args, kwargs)
        if admitted is not None:
            self.admit(admitted)

    def before_block(self, run: LlmInvocation, stated: Mapping[str, object]) -> None:
        """Reserve for a `with` block, which must not wait for a store in an event loop.

        Raises:
            ConfigurationError: the block would block the event loop; the message names the alternatives.
        """
        admitted = self._admitted(run, (), stated)
        if admitted is None:
            return
        if self.ledger.blocking and in_event_loop() and self._concerns(admitted, self.enforced):
            raise ConfigurationError(
                "`with track_llm(…)` in a coroutine would block its event loop while the budgets' store is asked: write"
                " `async with track_llm(…)`, or decorate the coroutine function with @observe_llm"
            )
        self.admit(admitted)

    def bypass_in_event_loop(
        self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> list[str]:
        """Let a call pass if querying the store would block an event loop.

        Returns:
            The budgets in enforce mode that were skipped, each with a decision `bypassed`; the call is charged.
        """
        if not self.ledger.blocking or not in_event_loop():
            return []
        admitted = self._admitted(run, args, kwargs)
        if admitted is None:
            return []
        request, names = admitted.request, []
        with guarded(COMPONENT, self.counters):
            for line in self._lines_of(request, self.enforced)[0]:
                self.emit(failure_of(line, request.origin, request.at_unix_ns, _NO_WAIT, refused=False))
                names.append(line.budget.name)
        return names

    async def before_async(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Reserve for a call that begins in an event loop, which goes on meanwhile."""
        admitted = self._admitted(run, args, kwargs)
        if admitted is None:
            return
        try:
            await self.admit_async(admitted)
        except asyncio.CancelledError:
            run.admitted = None
            raise

    def _admitted(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> Admitted | None:
        """What to reserve for a call; None if a block around it already did, or if it cannot be read."""
        if run.admitted is not None:
            return None
        with guarded(COMPONENT, self.counters):
            run.admitted = Admitted(self._request(run, args, kwargs))
        return run.admitted

    def _request(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> AdmissionRequest:
        scope = run.scope
        tenant, user, session = (None, None, None) if scope is None else scope[1:4]
        workflow, agent = run.lineage()
        origin = Origin(run.request_id, run.invocation_id, None, workflow, agent, *run.span_ids, tenant, user, session)
        call = CallScope(origin, run.request_model, run.provider, None, self.source)
        estimate = estimate_any(args, kwargs, guarded(COMPONENT, self.counters))
        return AdmissionRequest(run.invocation_id, call, estimate, self.now())

    def _concerns(self, admitted: Admitted, budgets: Sequence[Budget]) -> bool:
        return any(budget.scope_key(admitted.request.call) is not None for budget in budgets)

    def admit(self, admitted: Admitted) -> None:
        """Reserve for a call, or raise the refusal. See `before`."""
        error: RefusedError | None = None
        with guarded(COMPONENT, self.counters):
            error = self._judge(admitted)
        if error is not None:
            raise error

    async def admit_async(self, admitted: Admitted) -> None:
        """Reserve for a call in an event loop: steps that may wait run in a thread."""
        if not self.ledger.blocking and self._prices.ready and self._has_room(admitted):
            return
        try:
            await asyncio.to_thread(self.admit, admitted)
        except asyncio.CancelledError:
            # The call is never made. If the thread has reserved by now, this gives it back; otherwise the thread does.
            admitted.is_cancelled = True
            self.end_later(admitted.reservation_id, False)  # noqa: FBT003  not billed
            raise

    def _has_room(self, admitted: Admitted) -> bool:
        """Reserve if that needs no waiting; return whether it is done."""
        with guarded(COMPONENT, self.counters):
            lines, unpriced = self._lines_of(admitted.request, self.enforced)
            if not unpriced and self._reserve(admitted, lines) is None:
                self._ask_shadows(admitted)
                return True
        return False

    def _judge(self, admitted: Admitted) -> RefusedError | None:
        request = admitted.request
        lines, unpriced = self._lines_of(request, self.enforced)
        for line in unpriced:
            error = self._unjudged(line, request, _NO_PRICE, line.budget.when_unpriced)
            if error is not None:
                return error
        if self.is_closed and self.ledger.blocking:
            return self._without_store(request, lines)
        try:
            refusal = self._reserve(admitted, lines)
            if refusal is not None and not (refusal.is_final and self.ledger.blocking):
                self.catch_up()  # ended calls may make room, and the refusal reports current figures
                refusal = self._reserve(admitted, lines)
        except StoreError as failure:
            log_failure(COMPONENT, failure)
            return self._without_store(request, lines)
        if refusal is not None:
            return self._refusal_error(request, refusal)
        self._ask_shadows(admitted)
        return None

    def _lines_of(
        self, request: AdmissionRequest, budgets: Sequence[Budget]
    ) -> tuple[list[ReservationLine], list[ReservationLine]]:
        """What the call may take from each matching budget, and the lines with an unknown amount."""
        lines: list[ReservationLine] = []
        unpriced: list[ReservationLine] = []
        for budget in budgets:
            scope_key = budget.scope_key(request.call)
            if scope_key is None:
                continue
            window = self.windows.at(budget, request.at_unix_ns)
            usage = request.estimate.usage(budget.max_output_tokens)
            amount = self._amount(budget, request, usage)
            account = BudgetAccount(budget.name, scope_key, window.start)
            lines.append(ReservationLine(budget, account, window, amount or 0))
            if amount is None:
                unpriced.append(lines[-1])
        return lines, unpriced

    def _amount(self, budget: Budget, request: AdmissionRequest, usage: Usage) -> int | None:
        """What a call with this usage takes; None if its price is unknown."""
        if budget.unit == "requests":
            return 1
        if budget.unit == "tokens":
            return (usage.input_tokens or 0) + (usage.output_tokens or 0)
        price = self._prices.price(
            usage,
            provider=request.call.provider,
            request_model=request.call.model,
            response_model=None,
            at_unix_ns=request.at_unix_ns,
        )
        return None if price.cost is None else to_pico_usd(price.cost)

    def left_amount(self, admitted: Admitted, line: ReservationLine, stated: Usage | None) -> int:
        """What a call took if its reader left: its input, and the streamed part of the answer.

        Args:
            admitted: the call's reservation.
            line: the part of it that one budget holds.
            stated: what the provider had stated so far: Anthropic states the input before the first token.
        """
        usage = NO_USAGE if stated is None else stated
        if usage.input_tokens is None:
            usage = Usage(admitted.request.estimate.input_tokens, usage.output_tokens)
        usage = usage._replace(output_tokens=max(usage.output_tokens or 0, admitted.streamed.tokens))
        amount = self._amount(line.budget, admitted.request, usage)
        return line.amount if amount is None else amount

    def _reserve(self, admitted: Admitted, lines: Sequence[ReservationLine]) -> Refusal | None:
        if not lines:
            return None
        if not self.ledger.blocking:
            self.renew()
        request = admitted.request
        now, before = utc_from_unix_ns(request.at_unix_ns), admitted.lines
        admitted.lines = (*before, *lines)
        self.held[request.reservation_id] = admitted
        try:
            refusal = self.ledger.reserve(request.reservation_id, lines, now, now + self._reservation)
        except StoreError:
            self._forget(admitted, before)
            raise
        if refusal is not None:
            self._forget(admitted, before)
        elif admitted.is_cancelled or self.is_closed or request.reservation_id not in self.held:
            self.held.pop(request.reservation_id, None)
            self.ledger.settle([Charge(line._replace(amount=0), request.reservation_id) for line in lines], now)
        return refusal

    def _forget(self, admitted: Admitted, lines: tuple[ReservationLine, ...]) -> None:
        admitted.lines = lines
        if not lines:
            self.held.pop(admitted.reservation_id, None)

    def _ask_shadows(self, admitted: Admitted) -> None:
        """Check each shadow budget separately, because a refusal by one must not affect the others."""
        request = admitted.request
        for budget in self.shadows:
            lines, _ = self._lines_of(request, (budget,))
            try:
                refusal = self._reserve(admitted, lines)
            except StoreError as failure:
                log_failure(COMPONENT, failure)
                continue
            if refusal is not None:
                self.emit(refusal_of(refusal, request.origin, request.at_unix_ns, refused=False))

    def _refusal_error(self, request: AdmissionRequest, refusal: Refusal) -> BudgetExceededError:
        line, balance = refusal
        budget, resets_at = line.budget, line.window.end
        self.emit(refusal_of(refusal, request.origin, request.at_unix_ns, refused=True))
        with guarded(COMPONENT, self.counters):
            if self.ledger.count_refusal(line.account, budget.exhausted_permille if refusal.could_fit else 0):
                self.emit(exhausted_by(refusal, request.at_unix_ns))
        waits = None if resets_at is None else (resets_at - utc_from_unix_ns(request.at_unix_ns)).total_seconds()
        return BudgetExceededError(
            budget.name,
            limit=budget.amount(budget.limit),
            spent=budget.amount(balance.spent),
            reserved=budget.amount(balance.reserved),
            resets_at=resets_at,
            needed=budget.amount(line.amount),
            unit=budget.unit,
            tenant=request.origin.tenant,
            scope=budget.scope_of(line.account.scope_key),
            retry_after_s=waits if budget.is_rate else None,
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
        """Let a call that cannot be judged pass, or refuse it if the budget fails closed in this case."""
        refused = when == "closed" and line.budget.action == "enforce"
        self.emit(failure_of(line, request.origin, request.at_unix_ns, reason, refused=refused))
        return (
            BudgetUnavailableError(line.budget.name, reason, request_id=request.origin.request_id) if refused else None
        )

    # --- while calls run ---------------------------------------------------------------------------------------------

    def renew(self) -> None:
        """Renew the reservations of running calls when due, so that only those of a dead process expire.

        Raises:
            StoreError: the ledger cannot be reached.
        """
        now = self.utc_now()
        if now < self._renew_at:
            return
        keys = [
            reservation_key(reservation_id, line.budget.name)
            for reservation_id, admitted in self.held.copy().items()
            for line in admitted.lines
        ]
        if keys:
            self.ledger.renew(keys, now + self._reservation)
        self._renew_at = now + self._reservation / _RENEWALS


def utc_from_unix_ns(unix_ns: int) -> datetime:
    """Convert nanoseconds since the Unix epoch to a time in UTC."""
    return _EPOCH + timedelta(microseconds=unix_ns // 1_000)
