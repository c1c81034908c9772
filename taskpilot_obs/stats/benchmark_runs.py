"""Runs of the benchmark: what was compared, how, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.assess import wilson
from taskpilot_obs.golden_signals.model import Interval
from taskpilot_obs.stats.model import Frozen, Usd
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.store import Store, on_clickhouse
from taskpilot_obs.store.benchmark_figures import ArmRow, RunRow, arms_of, newest_runs
from taskpilot_obs.store.ledger_tables import BENCHMARKS_SINCE
from taskpilot_obs.store.questions import asked_of

MOST_RUNS: Final = 100
"""Most runs of one answer."""


class BenchmarkArm(Frozen):
    """One arm of a run, from its calls without those to warm up. None is unknown, and never 0."""

    arm: str
    provider: str | None
    model_name: str | None
    calls: int
    success_rate: float | None
    """Percent of successful and failed calls together."""
    success_rate_interval: Interval | None
    """Wilson score interval at 95 %, in percent."""
    correct_rate: float | None
    """Percent of the answers that were checked; a call that failed is not correct."""
    p50_latency_ms: float | None
    """Of the calls that succeeded, as every latency here."""
    p95_latency_ms: float | None
    p50_time_to_first_token_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost: Usd | None
    """In USD, of the calls with a known cost; None where no call has one."""
    cost_per_call: Usd | None
    """`cost` divided by the calls with a known cost."""
    cost_coverage: float | None
    """Share (0 to 1) of calls with a known cost."""


class BenchmarkRun(Frozen):
    """One run of the benchmark. None is unknown."""

    run_id: str
    name: str | None
    status: str
    created_at: datetime
    finished_at: datetime | None
    """None while it runs, or where it was interrupted."""
    service: str | None
    environment: str | None
    seed: int | None
    settings: dict[str, Any] | None
    """What was compared and how, as the runner wrote it."""
    summary: dict[str, Any] | None
    """The figures and the verdict, as the runner wrote them."""
    arms: tuple[BenchmarkArm, ...]


def get_benchmark_runs(
    period: Period | None = None,
    *,
    limit: int = 20,
    store: str | Store | None = None,
    now: datetime | None = None,
) -> tuple[BenchmarkRun, ...]:
    """Runs of the benchmark, the newest first.

    Args:
        period: as in `get_stats`; None for every run that the store holds.
        limit: most runs, up to 100.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.

    Raises:
        ConfigurationError: an argument cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    if not 1 <= limit <= MOST_RUNS:
        raise ConfigurationError(f"limit: given {limit}; allowed is 1 to {MOST_RUNS}")
    start, end = bounds(period or (None, None), now)
    with asked_of(store, start, end) as question:
        if question.version < BENCHMARKS_SINCE or on_clickhouse.is_on(question.connection):
            return ()
        rows = newest_runs(question.connection, start, end, limit)
        arms = arms_of(question.connection, [row.run_id for row in rows])
    return tuple(_run(row, arms.get(row.run_id, ())) for row in rows)


def _run(row: RunRow, arms: Sequence[ArmRow]) -> BenchmarkRun:
    stated = {**row._asdict(), "settings": _object(row.settings), "summary": _object(row.summary)}
    return BenchmarkRun(**stated, arms=tuple(map(_arm, arms)))


def _object(text: str | None) -> dict[str, Any] | None:
    """The JSON object of a column; None where there is none that can be read."""
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _arm(row: ArmRow) -> BenchmarkArm:
    counted = row.successes + row.failures
    return BenchmarkArm(
        arm=row.arm,
        provider=row.provider,
        model_name=row.model_name,
        calls=row.calls,
        success_rate=100 * row.successes / counted if counted else None,
        success_rate_interval=wilson(row.successes, counted) if counted else None,
        correct_rate=100 * row.correct / row.checked if row.checked else None,
        p50_latency_ms=row.p50_latency_ms,
        p95_latency_ms=row.p95_latency_ms,
        p50_time_to_first_token_ms=row.p50_time_to_first_token_ms,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost=row.cost,
        cost_per_call=None if row.cost is None else row.cost / Decimal(row.priced),
        cost_coverage=row.priced / row.calls if row.calls else None,
    )
