"""The plan of a benchmark: which calls, in which order, at which pace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import accumulate, count
from random import Random
from secrets import token_hex
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from taskpilot_obs.compare.bench.tasks import Item, Task
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.stats.model import Frozen

OBJECTIVES: Final = ("request_latency", "time_to_first_token", "inter_token_latency")
"""The measures, in milliseconds, for which a call may be given a limit; see `Plan.objectives`."""
_ARRIVALS: Final = 1
"""Keeps the random numbers of the arrivals apart from those of the order."""


def new_run_id() -> str:
    """An ID that begins with the time, so that runs sort by it."""
    return f"bench-{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(2)}"


class Plan(Frozen):
    """What a run does. It says all that is needed to repeat it, besides the arms' code."""

    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{1,100}$", default_factory=new_run_id)]
    name: str = "benchmark"
    created_at: Annotated[datetime, Field(default_factory=lambda: datetime.now(UTC))]
    arms: Annotated[tuple[str, ...], Field(min_length=1)]
    """As they were given: `openai/gpt-4o`, `mine=package.module:function`; or the names of callables."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("simple",)
    items: Annotated[int | None, Field(gt=0)] = None
    """Only so many items of each task."""
    iterations: Annotated[int, Field(gt=0)] = 5
    warm_up: Annotated[int, Field(ge=0)] = 1
    """Calls of each arm before the measurement, which no figure contains."""
    concurrency: Annotated[int, Field(gt=0, le=1_000)] = 4
    """Closed loop: so many calls at a time, a new one when one ends."""
    rate_per_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """Open loop: calls begin at this rate, however long they take; `concurrency` has no effect."""
    arrivals: Literal["poisson", "constant"] = "poisson"
    seed: int = 0
    max_cost_usd: Annotated[Decimal | None, Field(gt=0)] = None
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """Attempts beyond the first, after a rate limit, a broken connection or a failure of the provider."""
    retries_in_latency: bool = True
    """Whether the latency of a call begins with its first attempt; without, with its last."""
    vary_prefix: bool = False
    """Begin each prompt with other words, so that no provider's prompt cache can answer it."""
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    objectives: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(default_factory=dict)]
    """Milliseconds that a call may take, by measure; goodput counts the calls that keep all of them."""

    @model_validator(mode="after")
    def _known_objectives(self) -> Plan:
        unknown = sorted(set(self.objectives) - set(OBJECTIVES))
        if unknown:
            raise ValueError(f"objectives: given {', '.join(unknown)}; allowed are {', '.join(OBJECTIVES)}")
        return self

    @property
    def load(self) -> str:
        """How calls are sent, in words."""
        if self.rate_per_s is None:
            return f"closed loop, {self.concurrency} at a time"
        return f"open loop, {self.rate_per_s:g} per second ({self.arrivals} arrivals)"

    @property
    def cache_state(self) -> str:
        """Whether a provider's prompt cache could answer, in words."""
        if self.vary_prefix:
            return "prompts begin differently each time: a provider's prompt cache cannot answer"
        return "prompts repeat: a provider's prompt cache may answer"

    @property
    def retry_rule(self) -> str:
        """What happens after a failure, in words."""
        if not self.retries:
            return "no retries"
        return f"up to {self.retries} retries, {'in' if self.retries_in_latency else 'out of'} the latency"


def made_plan(**options: Any) -> Plan:
    """A plan of these options, which are the fields of `Plan`.

    Raises:
        ConfigurationError: an option is unknown or wrong.
    """
    try:
        return Plan(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{name}: {first['msg']}" if name else first["msg"]) from error


class Planned(NamedTuple):
    """One call that a run makes."""

    call_id: str
    arm: str
    task: str
    item: Item
    iteration: int
    warm_up: bool


def planned_calls(plan: Plan, arms: Sequence[str], tasks: Sequence[Task]) -> tuple[Planned, ...]:
    """Every call of a run in its order, the warm-up first; always the same for the same plan.

    Items are shuffled by the seed. Each goes to all arms, one right after the other, in an order that turns from item
    to item (ABBA), so that what changes over time at the providers strikes all arms alike.

    Args:
        plan: how often, and the seed.
        arms: names of the arms.
        tasks: the tasks.
    """
    order = Random(plan.seed)  # noqa: S311  an order, not a secret
    items = [(task.name, item) for task in tasks for item in task.items]
    numbers = count()
    warm = [(arm, *items[turn % len(items)], 0, True) for turn in range(plan.warm_up) for arm in arms]
    measured = []
    turns = count()
    for iteration in range(1, plan.iterations + 1):
        shuffled = items[:]
        order.shuffle(shuffled)
        for task, item in shuffled:
            measured += [(arm, task, item, iteration, False) for arm in _turned(arms, next(turns))]
    return tuple(Planned(f"{plan.run_id}-{next(numbers):06d}", *call) for call in (*warm, *measured))


def _turned(arms: Sequence[str], turn: int) -> list[str]:
    """The arms from another one on with every second turn, and backwards in every other."""
    start = turn // 2 % len(arms)
    turned = [*arms[start:], *arms[:start]]
    return turned[::-1] if turn % 2 else turned


def arrival_times(plan: Plan) -> Iterator[float]:
    """Seconds from the beginning at which the calls of an open loop begin."""
    rate = plan.rate_per_s or 1.0
    if plan.arrivals == "constant":
        return (number / rate for number in count())
    gaps = Random(plan.seed + _ARRIVALS)  # noqa: S311  arrivals, not a secret
    return accumulate(gaps.expovariate(rate) for _ in count())
