"""One call of a run as it is kept, and what the library recorded about its cost."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import NamedTuple

from taskpilot_obs.records import LLM_OPERATIONS, NO_USAGE, Invocation, Pricing, Record, Usage
from taskpilot_obs.stats.model import Frozen, Usd
from taskpilot_obs.usage.values import sum_of


class BenchCall(Frozen):
    """One finished call of a benchmark. None is unknown, and never 0."""

    call_id: str
    created_at: datetime
    arm: str
    provider: str | None
    model_name: str | None
    task: str
    item: str
    iteration: int
    warm_up: bool
    status: str
    """`success`, `error` or `timeout`."""
    success: bool
    correct: bool | None
    latency_ms: float
    time_to_first_token_ms: float | None
    lag_ms: float
    """How late the runner sent the call."""
    input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    cost_usd: Usd | None
    retries: int
    error_type: str | None
    error_category: str | None
    prompt_hash: str
    telemetry_id: str | None
    """Of its LLM call in the store; None where it made several, or none."""


class Spent(NamedTuple):
    """What the LLM calls beneath one call of the benchmark took."""

    provider: str | None = None
    model: str | None = None
    usage: Usage = NO_USAGE
    cost: Decimal | None = None
    telemetry_id: str | None = None


class Collector:
    """An exporter that adds up LLM calls by the request that they belong to. Threads may share it.

    Args:
        run_id: of the benchmark; requests of the application beside it are not counted.
    """

    def __init__(self, run_id: str) -> None:
        self._own = f"{run_id}-"
        self._lock = threading.Lock()
        self._seen: dict[str, list[Invocation]] = {}
        self._spent = Decimal(0)

    def export(self, batch: Sequence[Record], /) -> None:
        """Keep the finished LLM calls of the benchmark."""
        with self._lock:
            for record in batch:
                if isinstance(record, Invocation) and self._counts(record):
                    self._seen.setdefault(record.request_id, []).append(record)
                    self._spent += record.cost or 0

    def _counts(self, record: Invocation) -> bool:
        return record.operation in LLM_OPERATIONS and record.request_id.startswith(self._own)

    @property
    def spent(self) -> Decimal:
        """USD of all calls with a known cost so far."""
        with self._lock:
            return self._spent

    def take(self, request_id: str) -> Spent:
        """What a request took; its calls are forgotten."""
        with self._lock:
            found = self._seen.pop(request_id, [])
        return _of_calls(found) if found else Spent()


def _of_calls(calls: Sequence[Invocation]) -> Spent:
    last = calls[-1]
    unknown = any(call.pricing is Pricing.UNPRICED for call in calls)
    return Spent(
        last.provider,
        last.model,
        reduce(sum_of, [call.usage for call in calls if call.usage is not None], NO_USAGE),
        None if unknown else sum((call.cost or Decimal(0) for call in calls), Decimal(0)),
        last.invocation_id if len(calls) == 1 else None,
    )
