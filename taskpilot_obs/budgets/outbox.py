"""Sends charges to a ledger exactly once, despite failures, interruptions and lost answers."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count, repeat, starmap
from typing import TYPE_CHECKING, Final

from taskpilot_obs import semconv
from taskpilot_obs._support.guarded import guarded, log_failure
from taskpilot_obs.budgets.admission import COMPONENT, AdmissionController
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, IdempotencyKey, Settled
from taskpilot_obs.exceptions import StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_WAITING: Final = 100_000
_AT_ONCE: Final = 1_000


class _ChargeBatch:
    """Charges that are sent together, and repeated unchanged until the ledger has answered."""

    __slots__ = ("charges", "idempotency_key", "refusal", "untold")

    def __init__(self, idempotency_key: IdempotencyKey, charges: list[Charge]) -> None:
        self.idempotency_key = idempotency_key
        self.charges = charges
        self.untold: deque[Settled] | None = None
        """The part of the ledger's answer that was not passed on yet; None: no answer."""
        self.refusal: StoreError | None = None


class Outbox:
    """Sends charges to the ledger, and passes its answers on. One thread sends at a time; any thread may put.

    The next `send` continues an interrupted one, because each move of charges is a single C call.
    """

    def __init__(self, admission: AdmissionController, tell: Callable[[Settled], None]) -> None:
        self._admission = admission
        self._tell = tell
        self.renew()

    def renew(self) -> None:
        """In a forked child, drop waiting charges, which the parent sends, and take a new writer ID."""
        self._writer = secrets.token_hex(16)
        self._numbers = count(1)
        self._waiting: deque[Charge] = deque()
        self._batches: list[_ChargeBatch] = []
        """In progress: one, or one for each budget where the ledger refused them together."""

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(batch.charges) for batch in self._batches)

    def put(self, charges: Iterable[Charge]) -> None:
        """Add charges. An interrupted iterator may be put again, and continues."""
        self._waiting.extend(charges)

    def send(self) -> None:
        """Send the waiting charges. Those that fail now keep waiting."""
        try:
            while self._begun():
                for batch in self._batches:
                    if batch.refusal is None:
                        self._hand_over(batch)
                if not self._ended():
                    break
        except StoreUnavailableError as error:
            log_failure(COMPONENT, error)
        self._limit_waiting()

    def _begun(self) -> bool:
        """Whether there is something to do; what was handed over before comes first, unchanged."""
        if any(batch.charges for batch in self._batches):
            return True
        if not self._waiting:
            return False
        batch = self._batch_of([])
        self._batches = [batch]
        some = min(len(self._waiting), _AT_ONCE)
        batch.charges.extend(starmap(self._waiting.popleft, repeat((), some)))
        return True

    def _batch_of(self, charges: list[Charge]) -> _ChargeBatch:
        return _ChargeBatch(IdempotencyKey(self._writer, next(self._numbers)), charges)

    def _hand_over(self, batch: _ChargeBatch) -> None:
        admission = self._admission
        if batch.untold is None:
            try:
                batch.untold = deque(admission.ledger.settle(batch.charges, admission.utc_now(), batch.idempotency_key))
            except StoreUnavailableError:
                raise
            except StoreError as error:
                log_failure(COMPONENT, error)
                batch.refusal = error
                return
        while batch.untold:
            with guarded(COMPONENT, admission.counters):
                self._tell(batch.untold[0])
            batch.untold.popleft()

    def _ended(self) -> bool:
        """Whether to go on; not where everything is refused, because then the store is broken.

        Charges that are refused together are tried again budget by budget, so that one budget that the store refuses
        does not keep the others from being booked. What is refused beside others is lost, and counted.
        """
        refused = [batch for batch in self._batches if batch.refusal is not None]
        if len(refused) < len(self._batches):
            self._batches = []
            for batch in refused:
                self._admission.counters.add(semconv.INTERNAL_ERRORS, (COMPONENT,), len(batch.charges))
            return True
        parts = _by_budget(refused[0].charges)
        if len(refused) == 1 and len(parts) > 1:
            self._batches = [self._batch_of(part) for part in parts]
            return True
        for batch in reversed(refused):
            back = starmap(batch.charges.pop, repeat((), len(batch.charges)))
            self._waiting.extendleft(back)
        return False

    def _limit_waiting(self) -> None:
        """Sum what waits by account once it is too much: while the store is away for long, reservations may expire."""
        if len(self._waiting) <= _MAX_WAITING:
            return
        sums: dict[tuple[BudgetAccount, bool], Charge] = {}
        for _ in range(len(self._waiting)):  # in place, because other threads append meanwhile
            line, _, is_assumed = self._waiting.popleft()
            known = sums.get((line.account, is_assumed))
            amount = line.amount + (0 if known is None else known.line.amount)
            sums[line.account, is_assumed] = Charge(line._replace(amount=amount), None, is_assumed)
        self._waiting.extend(sums.values())


def _by_budget(charges: Sequence[Charge]) -> list[list[Charge]]:
    parts: dict[str, list[Charge]] = {}
    for charge in charges:
        parts.setdefault(charge.line.budget.name, []).append(charge)
    return list(parts.values())
