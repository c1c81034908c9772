"""A ledger in memory that a test steers: away, refusing, or losing its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.ledger import (
    Balance,
    BudgetAccount,
    Charge,
    IdempotencyKey,
    MemoryLedger,
    Refusal,
    ReservationLine,
    Settled,
)
from taskpilot_obs.exceptions import StoreError, StoreUnavailableError


class SteeredLedger(MemoryLedger):
    """A ledger whose store fails as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: set[str] = set()
        """Names of budgets whose charges are refused, with those beside them."""
        self.is_away = False
        self.loses_answers = False
        self.keys: list[IdempotencyKey | None] = []
        """Of each group of charges that came."""
        self.limits_of_others: dict[str, tuple[str, ...]] = {}
        self.reads = 0
        """How often the balances were read."""

    def _ask(self) -> None:
        if self.is_away:
            raise StoreUnavailableError("away")

    def reserve(
        self, reservation_id: str, lines: Sequence[ReservationLine], now: datetime, expires_at: datetime
    ) -> Refusal | None:
        self._ask()
        return super().reserve(reservation_id, lines, now, expires_at)

    def settle(
        self, charges: Sequence[Charge], now: datetime, idempotency_key: IdempotencyKey | None = None
    ) -> list[Settled]:
        self.keys.append(idempotency_key)
        self._ask()
        if self.refuses & {each.line.budget.name for each in charges}:
            raise StoreError("refused")
        found = super().settle(charges, now, idempotency_key)
        if self.loses_answers:
            raise StoreUnavailableError("the answer is lost")
        return found

    def read(self, budgets: Sequence[Budget], starts: Sequence[datetime]) -> dict[BudgetAccount, Balance]:  # type: ignore[override]
        self.reads += 1
        self._ask()
        return super().read(budgets, starts)

    def other_limits(self, budgets: Sequence[Budget], now: datetime) -> Mapping[str, tuple[str, ...]]:
        return self.limits_of_others
