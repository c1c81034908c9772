"""What a group of LLM calls adds up to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs._telemetry.money import to_decimal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

HALF: Final = 1 << 32
"""By which a `wide_sum` of the store is divided."""


class Counts(NamedTuple):
    """What a group of LLM calls adds up to."""

    requests: int
    successes: int
    failures: int
    priced: int
    """Calls with a known cost."""
    cache_hits: int
    """Calls that the application's own cache answered; they cost nothing."""
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cost_nano: int
    cost_rest: int
    refused: int
    """Calls that were refused, by the provider or before they were sent; they cost nothing."""
    partly_priced: int
    """Calls with a cost that is known to be incomplete."""
    latency_total_ms: float

    @property
    def billable(self) -> int:
        """Calls that may cost something."""
        return self.requests - self.cache_hits - self.refused

    @property
    def cost(self) -> Decimal:
        """In USD, exact."""
        return to_decimal(self.cost_nano, self.cost_rest)

    @property
    def unpriced(self) -> int:
        """Calls whose cost is unknown."""
        return self.billable - self.priced

    def plus(self, other: Counts) -> Counts:
        """The sum, field by field."""
        return Counts(*map(_add, self, other))


NO_CALLS: Final = Counts._make([0] * len(Counts._fields))


def _add(mine: float, theirs: float) -> Any:
    return mine + theirs


def counts_of(values: Sequence[Any]) -> Counts:
    """From SQL's sums: NULL where there was nothing, and decimals on PostgreSQL."""
    *whole, high, low, rest, refused, partly_priced, latency = (value or 0 for value in values)
    money = (joined(high, low), int(rest))
    return Counts._make([*map(int, whole), *money, int(refused), int(partly_priced), float(latency)])


def joined(high: int | Decimal | None, low: int | Decimal | None) -> int:
    """What the two parts of a `wide_sum` stand for."""
    return int(high or 0) * HALF + int(low or 0)
