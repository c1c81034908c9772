"""What questions are answered with. Nothing is rounded; money is `Decimal`, exact to 1e-12 USD."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer

Usd = Annotated[
    Decimal,
    AfterValidator(lambda amount: amount or Decimal(0)),
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json-unless-none"),
]
"""Money that reads as people write it: zero is `0` whatever it was counted in, and JSON has digits and no exponent."""


class Frozen(BaseModel):
    """A model whose fields cannot be set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProcessWindow(Frozen):
    """The calls that this process holds, which answer where no store is named."""

    since: datetime
    """Every call of this process that ended since then is held."""
    calls: int
    """How many calls are held, of any period."""
    max_calls: int
    """Of more calls, the oldest are forgotten (`stats_calls` of `configure`)."""
    max_age_s: float
    """Older calls are forgotten (`stats_age` of `configure`)."""


class Answer(Frozen):
    """What states where its figures come from."""

    scope: Literal["store", "process"] = "store"
    """`process`: no store is named, and the figures are those of this process alone."""
    window: ProcessWindow | None = None
    """What this process holds; None for an answer from a store."""


class Tokens(Frozen):
    """Tokens as the providers stated them; calls that stated none add nothing."""

    input: int
    """Cache reads and writes included."""
    output: int
    """Reasoning included."""
    total: int
    reasoning: int
    cached: int
    """Read from the provider's cache."""
    cache_write: int


class Durations(Frozen):
    """Milliseconds; quantiles are within 1 % of the exact ones. None without a call."""

    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class FirstToken(Frozen):
    """Time from the start of a streamed call to its first token, in milliseconds; None without one."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class CallStats(Frozen):
    """What a group of LLM calls comes to."""

    requests: int
    successes: int
    failures: int
    """Errors, timeouts and refusals; what was cancelled, abandoned or interrupted is neither success nor failure."""
    success_rate: float | None
    """Percent of successes and failures together; None without either."""
    tokens: Tokens
    cost_usd: Usd
    """Of the calls with a known price."""
    cost_coverage: float | None
    """Share (0 to 1) of calls with a known price among those that a provider answered; None without any."""
    cache_hits: int
    """Calls that the application's own cache answered."""
    latency: Durations
    time_to_first_token: FirstToken


class Stats(CallStats, Answer):
    """LLM calls in a stretch of time, [start, end)."""

    start: datetime
    end: datetime
    by_provider: Mapping[str, CallStats]
    by_model: Mapping[str, CallStats]
    by_agent: Mapping[str, CallStats]
    errors_by_type: Mapping[str, int]
    """Failures by category, or by class where an error has no category."""
    incomplete_before: datetime | None
    """Calls before this moment were deleted by age, and no summary tells them; None: the answer is complete.

    An answer from this process lacks the calls before `window.since`."""


class TenantStats(Stats):
    """LLM calls of one tenant."""

    tenant: str


class CostShare(Frozen):
    """A part of the money."""

    cost_usd: Usd
    percent: float | None
    """Of the whole; None where nothing was spent."""
    requests: int
    cost_per_request_usd: Usd | None
    """Cost divided by calls with a known price; None without one."""
    cost_coverage: float | None


class CostBreakdown(CostShare, Answer):
    """Where the money of a stretch of time went; each mapping is in falling order of cost."""

    start: datetime
    end: datetime
    by_provider: Mapping[str, CostShare]
    by_model: Mapping[str, CostShare]
    by_agent: Mapping[str, CostShare]
    by_tenant: Mapping[str, CostShare]
    incomplete_before: datetime | None
    """As in `Stats`."""


class TenantUsage(CostShare):
    """One line of the report on tenants."""

    tenant: str
    success_rate: float | None
    tokens: Tokens
    p95_ms: float | None


class UserUsage(CostShare):
    """One line of the report on users."""

    user: str
    success_rate: float | None
    tokens: Tokens
    p95_ms: float | None


class UsersReport(Answer):
    """The users of a stretch of time, in falling order of cost."""

    start: datetime
    end: datetime
    cost_usd: Usd
    """Of all users, also of those that are not listed."""
    users_total: int
    """How many users there are; a limit lists fewer."""
    users: tuple[UserUsage, ...]
    incomplete_before: datetime | None
    """As in `Stats`."""


class TenantsReport(Answer):
    """The tenants of a stretch of time, in falling order of cost."""

    start: datetime
    end: datetime
    cost_usd: Usd
    """Of all tenants, also of those that are not listed."""
    tenants_total: int
    """How many tenants there are; a limit lists fewer."""
    tenants: tuple[TenantUsage, ...]
    incomplete_before: datetime | None
    """As in `Stats`."""


class CostSummary(CostShare, Answer):
    """The money of the day, week or month of the calendar, so far."""

    period: str
    timezone: str
    start: datetime
    end: datetime
    now: datetime
    """Up to when the period is summed up."""
    previous_cost_usd: Usd
    """Of the whole period before."""
    previous_to_date_usd: Usd
    """Of the period before, up to the same time since its start."""
    change_percent: float | None
    """Of the cost against `previous_to_date_usd`; None where nothing was spent then, or either is incomplete."""
    projected_cost_usd: Usd | None
    """At the end of the period, if spending goes on at its present rate; None in the first hundredth of it."""
    by_provider: Mapping[str, CostShare]
    by_model: Mapping[str, CostShare]
    by_agent: Mapping[str, CostShare]
    by_tenant: Mapping[str, CostShare]
    incomplete_before: datetime | None
    """As in `Stats`."""
    previous_incomplete_before: datetime | None
    """`incomplete_before` of the period before."""
