"""Budgets at work: asked before an LLM call, booked after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs.budgets.alerts import failure_of, refusal_of
from taskpilot_obs.budgets.estimates import Plan, planned
from taskpilot_obs.budgets.ledger import Account, Booking, Claim, Ledger, Refusal
from taskpilot_obs.budgets.model import Budget, Call, Windows, smallest
from taskpilot_obs.exceptions import (
    BudgetExceededError,
    BudgetUnavailableError,
    ConfigurationError,
    RefusedError,
    StoreError,
)
from taskpilot_obs.guarded import guarded, log_failure
from taskpilot_obs.records import Origin

if TYPE_CHECKING:
    from taskpilot_obs.budgets.booking import Book
    from taskpilot_obs.clock import Clock
    from taskpilot_obs.llm_invocation import LlmInvocation
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.records import Record
    from taskpilot_obs.self_telemetry import Tally

WHERE: Final = "budgets"
RESERVATION_S: Final = 900.0
"""How long a reservation lasts that nobody settles: its process is dead, or its record was lost."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_PRICE: Final = "no price is known for the model"
_NO_STORE: Final = "the store of the budgets cannot be asked"


class Ask(NamedTuple):
    """One question: may this call start?"""

    hold: str
    call: Call
    plan: Plan
    origin: Origin
    at_unix_ns: int


class Means(NamedTuple):
    """What budgets need of their recorder."""

    clock: Clock
    prices: PriceTable
    tally: Tally
    report: Callable[[Record], None]
    """Takes decisions."""


class Control:
    """The budgets of one recorder.

    Args:
        means: clock, prices and where decisions go.
        ledger: where budgets are kept.
        reservation_s: how long a reservation lasts that nobody settles.
    """

    def __init__(self, means: Means, ledger: Ledger, *, reservation_s: float = RESERVATION_S) -> None:
        self._clock, self._prices, self.tally, self.report = means
        self.ledger = ledger
        self.budgets: tuple[Budget, ...] = ()
        self.enforced: tuple[Budget, ...] = ()
        self.shadows: tuple[Budget, ...] = ()
        self.windows = Windows()
        self.held: dict[str, tuple[Claim, ...]] = {}
        """What calls of this process hold, until their end is booked."""
        self.catch_up: Callable[[], object] = lambda: None
        """Books what has ended and waits in a queue; set by whoever owns the queue."""
        self.book: Book | None = None
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

    def moment(self) -> datetime:
        """The present time, in UTC."""
        return moment_of(self.now())

    # --- before a call -----------------------------------------------------------------------------------------------

    def before(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Reserve for a call that begins.

        Raises:
            BudgetExceededError: a budget in `enforce` mode has no room for it.
            BudgetUnavailableError: one that is closed then cannot ask its store, or knows no price.
        """
        asked = None
        with guarded(WHERE, self.tally):
            asked = self._question(run, args, kwargs)
        if asked is not None and asked.hold not in self.held:
            self.ask(asked)

    async def before_async(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """The same, in an event loop that goes on meanwhile."""
        asked = None
        with guarded(WHERE, self.tally):
            asked = self._question(run, args, kwargs)
        if asked is not None and asked.hold not in self.held:
            await self.ask_async(asked)

    def _question(self, run: LlmInvocation, args: Sequence[object], kwargs: Mapping[str, object]) -> Ask:
        scope = run.scope
        tenant, user, session = (None, None, None) if scope is None else scope[1:4]
        workflow, agent = run.lineage()
        call = Call(tenant, agent, workflow, run.request_model, run.provider, user)
        origin = Origin(run.request_id, run.invocation_id, None, workflow, agent, *run.span_ids, tenant, user, session)
        return Ask(run.invocation_id, call, planned(args, kwargs), origin, self.now())

    def ask(self, asked: Ask) -> None:
        """Reserve, or raise the refusal. See `before`."""
        error: RefusedError | None = None
        with guarded(WHERE, self.tally):
            error = self._judge(asked)
        if error is not None:
            raise error

    async def ask_async(self, asked: Ask) -> None:
        """The same, in an event loop: whatever may wait does so in a thread."""
        if self.ledger.blocking or not self._prices.ready or not self._has_room(asked):
            await asyncio.to_thread(self.ask, asked)

    def _has_room(self, asked: Ask) -> bool:
        """Reserve where that takes no wait; whether it is done."""
        with guarded(WHERE, self.tally):
            claims, unpriced = self._claims(asked, self.enforced)
            if not unpriced and self._reserve(asked, claims) is None:
                self._ask_shadows(asked)
                return True
        return False

    def _judge(self, asked: Ask) -> RefusedError | None:
        claims, unpriced = self._claims(asked, self.enforced)
        for claim in unpriced:
            error = self._unjudged(claim, asked, _NO_PRICE, claim.budget.when_unpriced)
            if error is not None:
                return error
        try:
            refusal = self._reserve(asked, claims)
            if refusal is not None and not refusal.is_final:
                self.catch_up()
                refusal = self._reserve(asked, claims)
        except StoreError as failure:
            log_failure(WHERE, failure)
            return self._without_store(asked, claims)
        if refusal is not None:
            return self._refused(asked, refusal)
        self._ask_shadows(asked)
        return None

    def _claims(self, asked: Ask, budgets: Sequence[Budget]) -> tuple[list[Claim], list[Claim]]:
        """What the call may take of each budget that it falls under; and those of them where nobody knows."""
        claims: list[Claim] = []
        unpriced: list[Claim] = []
        for budget in budgets:
            scope_key = budget.scope_key(asked.call)
            if scope_key is None:
                continue
            window = self.windows.at(budget, asked.at_unix_ns)
            amount = self._amount(budget, asked)
            claims.append(Claim(budget, Account(budget.name, scope_key, window.start), window, amount or 0))
            if amount is None:
                unpriced.append(claims[-1])
        return claims, unpriced

    def _amount(self, budget: Budget, asked: Ask) -> int | None:
        """What a call may take at most; None where nobody knows the price."""
        if budget.unit == "tokens":
            return asked.plan.tokens(budget.max_output_tokens)
        price = self._prices.price(
            asked.plan.usage(budget.max_output_tokens),
            provider=asked.call.provider,
            request_model=asked.call.model,
            response_model=None,
            at_unix_ns=asked.at_unix_ns,
        )
        return None if price.cost is None else smallest(price.cost)

    def _reserve(self, asked: Ask, claims: Sequence[Claim]) -> Refusal | None:
        if not claims:
            return None
        now = moment_of(asked.at_unix_ns)
        self.held[asked.hold] = (*self.held.get(asked.hold, ()), *claims)
        try:
            refusal = self.ledger.reserve(asked.hold, claims, now, now + self._reservation)
        except StoreError:
            self._forget(asked.hold, claims)
            raise
        if refusal is not None:
            self._forget(asked.hold, claims)
        elif asked.hold not in self.held:  # cancelled meanwhile, and booked already
            self.ledger.settle([Booking(claim._replace(amount=0), asked.hold) for claim in claims], now)
        return refusal

    def _forget(self, hold: str, claims: Sequence[Claim]) -> None:
        rest = tuple(claim for claim in self.held.pop(hold, ()) if claim not in claims)
        if rest:
            self.held[hold] = rest

    def _ask_shadows(self, asked: Ask) -> None:
        """Each for itself: what one of them would refuse takes nothing from the others."""
        for budget in self.shadows:
            claims, _ = self._claims(asked, (budget,))
            try:
                refusal = self._reserve(asked, claims)
            except StoreError as failure:
                log_failure(WHERE, failure)
                continue
            if refusal is not None:
                self.report(refusal_of(refusal, asked.origin, asked.at_unix_ns, refused=False))

    def _refused(self, asked: Ask, refusal: Refusal) -> BudgetExceededError:
        claim, standing = refusal
        budget = claim.budget
        self.report(refusal_of(refusal, asked.origin, asked.at_unix_ns, refused=True))
        with guarded(WHERE, self.tally):
            self.ledger.count_refusal(claim.account)
        return BudgetExceededError(
            budget.name,
            limit=budget.amount(budget.limit),
            spent=budget.amount(standing.spent),
            reserved=budget.amount(standing.reserved),
            resets_at=claim.window.end,
            request_id=asked.origin.request_id,
        )

    def _without_store(self, asked: Ask, claims: Sequence[Claim]) -> RefusedError | None:
        for claim in claims:
            error = self._unjudged(claim, asked, _NO_STORE, claim.budget.when_store_down)
            if error is not None:
                return error
        return None

    def _unjudged(self, claim: Claim, asked: Ask, reason: str, when: str) -> RefusedError | None:
        """A call that cannot be judged passes, or is refused where the budget is closed then."""
        refused = when == "closed" and claim.budget.action == "enforce"
        self.report(failure_of(claim, asked.origin, asked.at_unix_ns, reason, refused=refused))
        return (
            BudgetUnavailableError(claim.budget.name, reason, request_id=asked.origin.request_id) if refused else None
        )


def moment_of(unix_ns: int) -> datetime:
    """The time so many nanoseconds after the Unix epoch, in UTC."""
    return _EPOCH + timedelta(microseconds=unix_ns // 1_000)
