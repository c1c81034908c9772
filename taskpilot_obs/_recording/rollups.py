"""Running sums of the calls beneath an agent or a workflow."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from taskpilot_obs.records import AttributeValue, Rollup
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskpilot_obs.usage import Usage

_ZERO = Decimal(0)


class Totals:
    """A `Rollup` that is still growing. Owned by one thread."""

    __slots__ = (
        *("claimed", "cost", "input_tokens", "llm_calls", "output_tokens", "tool_calls"),
        *("unpriced_calls", "violations"),
    )

    def __init__(self) -> None:
        self.claimed: Totals | None = None
        """The part that cannot account for a further result of an agent; see `claim`."""
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost = _ZERO
        self.llm_calls = 0
        self.unpriced_calls = 0
        self.tool_calls = 0
        self.violations = 0

    def __bool__(self) -> bool:
        return bool(self.llm_calls or self.tool_calls or self.violations or self.claimed is not None)

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input_tokens + self.output_tokens

    def add(self, other: Totals) -> None:
        """Add another sum."""
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost += other.cost
        self.llm_calls += other.llm_calls
        self.unpriced_calls += other.unpriced_calls
        self.tool_calls += other.tool_calls
        self.violations += other.violations
        if other.claimed is not None:
            self._own_claims().add(other.claimed)

    def add_llm_call(self, usage: Usage | None, cost: Decimal | None, *, priced: bool) -> None:
        """Add one LLM call; `priced` means that its cost is known, or known to be zero."""
        self.llm_calls += 1
        self.unpriced_calls += not priced
        if usage is not None:
            self.input_tokens += usage.input_tokens or 0
            self.output_tokens += usage.output_tokens or 0
        if cost is not None:
            self.cost += cost

    def claim(self, calls: int, usage: Usage | None) -> None:
        """Keep calls and tokens from accounting for a further result of an agent.

        Those of a result that is booked as a call prove nothing about others, and those of booked calls prove one
        result.
        """
        claims = self._own_claims()
        claims.llm_calls += calls
        if usage is not None:
            claims.input_tokens += usage.input_tokens or 0
            claims.output_tokens += usage.output_tokens or 0

    def _own_claims(self) -> Totals:
        if self.claimed is None:
            self.claimed = Totals()
        return self.claimed

    def book(self, usage: Usage, sums: int) -> bool:
        """Add the tokens of an LLM call, or leave those of a result to its calls.

        Args:
            usage: the tokens.
            sums: how many calls they sum; 0 for those of one call.

        Returns:
            Whether they are added.
        """
        left = sums > 0 and self.accounts_for(sums, usage)
        if not left:
            self.add_llm_call(usage, None, priced=True)
        if sums:
            self.claim(sums if left else 1, usage)
        return not left

    def accounts_for(self, calls: int, usage: Usage | None) -> bool:
        """Whether the booked calls that are not claimed are at least these calls, with at least these tokens."""
        claimed = _NOTHING if self.claimed is None else self.claimed
        input_tokens, output_tokens = (None, None) if usage is None else usage[:2]
        return (
            self.llm_calls - claimed.llm_calls >= calls
            and self.input_tokens - claimed.input_tokens >= (input_tokens or 0)
            and self.output_tokens - claimed.output_tokens >= (output_tokens or 0)
        )

    def frozen(self) -> Rollup:
        """Return the current sums as a `Rollup`."""
        return Rollup(
            self.input_tokens,
            self.output_tokens,
            self.cost,
            self.llm_calls,
            self.unpriced_calls,
            self.tool_calls,
            self.violations,
        )

    def as_attributes(self) -> dict[str, AttributeValue]:
        """Return the sums as span attributes; without a cost if no call's cost is known."""
        attributes: dict[str, AttributeValue] = {
            Attr.ROLLUP_INPUT_TOKENS: self.input_tokens,
            Attr.ROLLUP_OUTPUT_TOKENS: self.output_tokens,
            Attr.ROLLUP_LLM_CALLS: self.llm_calls,
            Attr.ROLLUP_TOOL_CALLS: self.tool_calls,
        }
        if self.unpriced_calls < self.llm_calls:
            attributes[Attr.ROLLUP_COST] = float(self.cost)
        return attributes


_NOTHING: Final = Totals()


def sum_of(parts: Sequence[Totals] | None) -> Totals:
    """Return the sum of all; a single one is returned as it is."""
    if not parts:
        return Totals()
    if len(parts) == 1:
        return parts[0]
    totals = Totals()
    for part in parts:
        totals.add(part)
    return totals
