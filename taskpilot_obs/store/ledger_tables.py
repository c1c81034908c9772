"""The tables of the telemetry store that budgets and benchmark runs keep their books in; see `tables`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, SmallInteger, Table, Text, text

from taskpilot_obs.store.tables import SINCE, UtcTime, added, columns, metadata

_ZERO: Final = text("0")

BUDGET_LEDGER = Table(
    "budget_ledger",
    metadata,
    Column("budget", Text, primary_key=True),
    Column(
        "scope_key", Text, primary_key=True
    ),  # the values that a budget per tenant, user, … was split by; else empty
    Column("period_start", UtcTime, primary_key=True),
    Column("period", Text, nullable=False),  # day | week | month | total
    Column("unit", Text, nullable=False),  # usd | tokens
    Column("spent_units", BigInteger, nullable=False),  # billionths of a USD, or tokens
    Column(
        "spent_rest", BigInteger, nullable=False
    ),  # trillionths of a USD on top; not folded, so that adding is enough
    *columns(BigInteger, "reserved_units", "reserved_rest", "refusals", nullable=False),
    Column("alerted_permille", Integer, nullable=False),  # the highest threshold that was alerted in this period
    Column("updated_at", UtcTime, nullable=False),
    # the part of spent_* that was booked by estimate, because nothing states what the call cost
    Column("assumed_units", BigInteger, nullable=False, server_default=_ZERO, info={SINCE: "0003"}),
    Column("assumed_rest", BigInteger, nullable=False, server_default=_ZERO, info={SINCE: "0003"}),
    added("limit_units", BigInteger),  # the limit of the process that booked last
    added("limit_rest", BigInteger),
)

BUDGET_RESERVATIONS = Table(
    "budget_reservations",
    metadata,
    Column("reservation_id", Text, primary_key=True),
    *columns(Text, "budget", "scope_key", nullable=False),
    Column("period_start", UtcTime, nullable=False),
    *columns(BigInteger, "units", "rest", nullable=False),
    *columns(UtcTime, "created_at", "expires_at", nullable=False),
    Index("ix_budget_reservations_budget", "budget", "scope_key", "period_start"),
    Index("ix_budget_reservations_expiry", "expires_at"),
)
"""What calls in progress hold of a ledger's `reserved_*`; what a dead process held is released when it expires."""

BUDGET_WRITERS = Table(
    "budget_writers",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("batch", BigInteger, nullable=False),  # the number of the bookings that it handed over last
    Column("crossed", Text),  # JSON: the thresholds that these crossed, by account in their order
    Column("booked_at", UtcTime, nullable=False),  # without an index: PostgreSQL then changes the row in its place
)
"""What each process booked last: bookings whose answer was lost come again, and are known by their number."""

BENCHMARKS_SINCE: Final = "0004"
"""The version of the tables that added those of the benchmark."""

BENCHMARK_RUNS = Table(
    "benchmark_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Column("name", Text),
    Column("status", Text, nullable=False),
    *columns(Text, "service", "environment"),
    Column("seed", BigInteger),
    Column("settings", Text),  # JSON: arms, tasks, iterations, load, base URLs, versions
    Column("summary", Text),  # JSON: figures by arm, and the verdict
    Index("ix_benchmark_runs_time", "created_at"),
)
"""A run of the benchmark: what was compared, how, and what came of it."""

BENCHMARK_CALLS = Table(
    "benchmark_calls",
    metadata,
    Column("call_id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("arm", Text, nullable=False),
    *columns(Text, "provider", "model_name", "task", "item"),
    Column("iteration", Integer, nullable=False),
    Column("warm_up", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    *columns(Boolean, "success", "correct"),
    *columns(Float(53), "latency_ms", "time_to_first_token_ms"),
    Column("lag_ms", Float(53)),  # how late the runner sent the call
    *columns(BigInteger, "input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "cost_nano"),
    Column("cost_rest", SmallInteger),
    Column("retries", Integer),
    *columns(Text, "error_type", "error_category", "prompt_hash"),
    Column("telemetry_id", Text),  # of the call in `llm_call_telemetry`
    Index("ix_benchmark_calls_run", "run_id", "created_at"),
)
"""A call of a benchmark run."""

ALL_TABLES: Final = tuple(metadata.tables.values())
"""Every table of the store."""
