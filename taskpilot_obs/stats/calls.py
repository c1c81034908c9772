"""Single LLM calls, newest first, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Unpack

from taskpilot_obs._telemetry.money import LIMIT_USD
from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Status
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Frozen, Usd
from taskpilot_obs.stats.periods import Period, bounds

if TYPE_CHECKING:
    from taskpilot_obs.store import Store

MOST_CALLS: Final = 1_000
"""Most calls of one page."""
EXACT: Final = (
    *("status", "request_id", "session_id", "step_id", "task_id", "workflow_run_id", "thought_id", "trace_id"),
    *("experiment", "variant"),
)
"""Columns that `get_calls` can be narrowed to beside those of `get_stats`."""


class Call(Frozen):
    """One LLM call as the store keeps it, without anything that a user or a model wrote. None is unknown."""

    telemetry_id: str
    created_at: datetime
    """When the call ended."""
    status: str
    success: bool | None
    """None for a call that was cancelled, abandoned or interrupted."""
    provider: str | None
    model_name: str | None
    agent: str | None
    workflow: str | None
    prompt_name: str | None
    organization_id: str | None
    """The tenant."""
    user_id: str | None
    session_id: str | None
    request_id: str
    trace_id: str | None
    parent_id: str | None
    llm_key: str | None
    step_id: str | None
    task_id: str | None
    workflow_run_id: str | None
    thought_id: str | None
    experiment: str | None
    variant: str | None
    latency_ms: float
    time_to_first_token_ms: float | None
    streaming: bool
    cached: bool | None
    """Whether the application's own cache answered."""
    input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    """Read from the provider's cache."""
    cache_write_tokens: int | None
    total_tokens: int | None
    cost: Usd | None
    """In USD."""
    cost_source: str | None
    error_type: str | None
    error_category: str | None


class CallPosition(NamedTuple):
    """The last call of a page; the next page begins after it, however many newer calls arrive."""

    created_at: datetime
    telemetry_id: str


class CallPage(Frozen):
    """Some calls, newest first."""

    calls: tuple[Call, ...]
    next: CallPosition | None
    """Give it as `after` for the page that follows; None: this was the last."""


def get_calls(
    period: Period | None = None,
    *,
    store: str | Store | None = None,
    limit: int = 100,
    after: CallPosition | None = None,
    min_cost: Decimal | float | str | None = None,
    exact: Mapping[str, str] | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> CallPage:
    """Single LLM calls, newest first. Pages stay stable while calls arrive.

    Args:
        period: as in `get_stats`; None for every call that the store holds.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        limit: most calls of the page, up to 1,000.
        after: `next` of the page before.
        min_cost: only calls that cost at least so many USD.
        exact: further values by column, as `{"status": "error"}`; the columns are those of `EXACT`.
        now: the present; for tests.
        asked: `tenant`, `agent`, …: only calls with this value.

    Raises:
        ConfigurationError: an argument cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    if not 1 <= limit <= MOST_CALLS:
        raise ConfigurationError(f"limit: given {limit}; allowed is 1 to {MOST_CALLS}")
    from taskpilot_obs.store.access import opened
    from taskpilot_obs.store.calls import CallQuestion, newest_calls

    start, end = (None, None) if period is None else bounds(period, now)
    question = CallQuestion(
        filters_of(asked),
        start,
        end,
        _checked_exact(exact or {}),
        _checked_cost(min_cost),
        None if after is None else (after.created_at, after.telemetry_id),
    )
    with opened(store) as opened_store, opened_store.reading() as connection:
        lines = newest_calls(connection, question, limit + 1, opened_store.known_version)
    calls = tuple(call_of(line) for line in lines[:limit])
    more = len(lines) > limit
    return CallPage(calls=calls, next=CallPosition(calls[-1].created_at, calls[-1].telemetry_id) if more else None)


def call_of(line: Mapping[str, Any]) -> Call:
    """A row as a model; what the version of the tables does not keep is unknown."""
    return Call(**{name: line.get(name) for name in Call.model_fields})


def _checked_exact(exact: Mapping[str, str]) -> dict[str, Any]:
    for name, value in exact.items():
        if name not in EXACT:
            raise ConfigurationError(f"exact: given {name!r}; allowed are {', '.join(EXACT)}")
        if name == "status" and value not in [*Status]:
            raise ConfigurationError(f"status: given {value!r}; allowed are {', '.join(Status)}")
        if not value:
            raise ConfigurationError(f"{name}: given nothing; give a value, or leave it out")
    return {name: stored_text(value) for name, value in exact.items()}


def _checked_cost(given: Decimal | float | str | None) -> Decimal | None:
    if given is None:
        return None
    try:
        cost = Decimal(str(given))
    except ArithmeticError:
        cost = Decimal("NaN")
    if not cost.is_finite() or not 0 <= cost <= LIMIT_USD:
        raise ConfigurationError(f"min_cost: given {given!r}; it must be an amount of USD from 0 to {LIMIT_USD:,}")
    return cost
