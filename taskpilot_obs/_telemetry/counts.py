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

    requests: int = 0
    successes: int = 0
    failures: int = 0
    priced: int = 0
    """Calls with a known cost."""
    cache_hits: int = 0
    """Calls that the application's own cache answered; they cost nothing."""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nano: int = 0
    cost_rest: int = 0
    refused: int = 0
    """Calls that were refused, by the provider or before they were sent; they cost nothing."""
    partly_priced: int = 0
    """Calls with a cost that is known to be incomplete."""
    latency_total_ms: float = 0.0

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


def _add(mine: float, theirs: float) -> Any:
    return mine + theirs


def counts_of(values: Sequence[Any]) -> Counts:
    """From SQL's sums: NULL where there was nothing, and decimals on PostgreSQL."""
    *whole, high, low, rest, refused, partly_priced, latency = (value or 0 for value in values)
    return Counts(*map(int, whole))._replace(
        cost_nano=joined(high, low),
        cost_rest=int(rest),
        refused=int(refused),
        partly_priced=int(partly_priced),
        latency_total_ms=float(latency),
    )


def joined(high: int | Decimal | None, low: int | Decimal | None) -> int:
    """What the two parts of a `wide_sum` stand for."""
    return int(high or 0) * HALF + int(low or 0)
