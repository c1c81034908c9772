"""What a plan costs at most, before anything is spent."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from taskpilot_obs.budgets.estimates import BYTES_PER_TOKEN
from taskpilot_obs.records import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskpilot_obs.compare.bench.arms import ConnectedArm
    from taskpilot_obs.compare.bench.plan import Planned
    from taskpilot_obs.pricing import PriceTable


class Estimate(NamedTuple):
    """The calls of one arm, without retries."""

    arm: str
    calls: int
    input_tokens: int
    """At three bytes a token."""
    output_tokens: int
    """At most, if every answer is as long as it may be."""
    cost: Decimal | None
    """USD at most; None for an arm whose model is unknown, or has no price."""


def estimated(calls: Sequence[Planned], arms: Mapping[str, ConnectedArm], prices: PriceTable) -> tuple[Estimate, ...]:
    """What each arm takes at most.

    Args:
        calls: the calls to make.
        arms: the arms by name.
        prices: of the models.
    """
    return tuple(_of(arm, [call for call in calls if call.arm == arm.name], prices) for arm in arms.values())


def _of(arm: ConnectedArm, calls: Sequence[Planned], prices: PriceTable) -> Estimate:
    usages = [_usage(call) for call in calls]
    costs = [_cost(arm, usage, prices) for usage in usages]
    known = [cost for cost in costs if cost is not None]
    return Estimate(
        arm.name,
        len(calls),
        sum(usage.input_tokens or 0 for usage in usages),
        sum(usage.output_tokens or 0 for usage in usages),
        sum(known, Decimal(0)) if len(known) == len(costs) else None,
    )


def _usage(call: Planned) -> Usage:
    return Usage(-(-len(call.item.prompt.encode()) // BYTES_PER_TOKEN), call.item.max_tokens)


def _cost(arm: ConnectedArm, usage: Usage, prices: PriceTable) -> Decimal | None:
    provider, model, *_ = arm.described
    if model is None:
        return None
    return prices.price(
        usage, provider=provider, request_model=model, response_model=None, at_unix_ns=time.time_ns()
    ).cost
