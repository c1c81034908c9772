"""The tables of the telemetry store, as the queries of this package see them.

The migrations draw them; a test compares both. Times are UTC: `TIMESTAMP WITH TIME ZONE` on PostgreSQL, microseconds
since the Unix epoch on SQLite. Money is two integers (see `money`), beside which the database itself shows a readable
`cost`. A dimension that is unknown is the empty text in tables that group by it, and NULL in rows.

Numbers stand first in a row: SQLite reads a row up to the column that is asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeEngine

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Microseconds since the Unix epoch of an aware time; exact, unlike `datetime.timestamp`."""
    return (moment - EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The time, in UTC, so many microseconds after the Unix epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`TIMESTAMP WITH TIME ZONE` where there is one."""
        return dialect.type_descriptor(TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """What the driver gets."""
        if value is None or dialect.name == "postgresql":
            return value
        return to_microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """What the driver gave, in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name == "postgresql" else from_microseconds(value)


metadata = MetaData()

BIG_ID: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself in a column of type INTEGER only."""


def _money() -> list[Column[Any]]:
    return [Column("cost_nano", BigInteger), Column("cost_rest", SmallInteger)]


LLM_SERIES = Table(
    "llm_series",
    metadata,
    Column("series_id", Integer, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Index("ux_llm_series", "provider", "model_name", "agent", unique=True),
)
"""The combinations of provider, model and agent that were ever seen; a row names its own by a small number, because
both engines group a million integers several times faster than a million texts."""

SQLITE_SUMS: Final = "ix_llm_call_telemetry_sums"
"""Index that holds all that is summed up, on SQLite only, which would have to sort; PostgreSQL adds up without."""

LLM_CALLS = Table(
    "llm_call_telemetry",
    metadata,
    Column("series_id", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("success", Boolean),  # NULL: cancelled, abandoned or interrupted proves nothing
    Column("cached", Boolean),
    Column("streaming", Boolean, nullable=False),
    Column("latency_bin", SmallInteger, nullable=False),
    Column("ttft_bin", SmallInteger),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    *_money(),
    Column("latency_ms", Float(53), nullable=False),
    Column("time_to_first_token_ms", Float(53)),
    Column("telemetry_id", Text, primary_key=True),
    Column("organization_id", Text),
    Column("user_id", Text),
    Column("session_id", Text),
    Column("llm_key", Text),
    Column("provider", Text),
    Column("model_name", Text),
    Column("prompt_name", Text),
    Column("step_id", Text),
    Column("task_id", Text),
    Column("workflow_run_id", Text),
    Column("thought_id", Text),
    Column("parent_id", Text),
    Column("request_id", Text, nullable=False),
    Column("trace_id", Text),
    Column("agent", Text),
    Column("workflow", Text),
    Column("cost_source", Text),
    Column("status", Text, nullable=False),
    Column("error_type", Text),
    Column("error_category", Text),
    Column("error_message", Text),
    Column("experiment", Text),
    Column("variant", Text),
    Index("ix_llm_call_telemetry_time", "created_at"),
    Index("ix_llm_call_telemetry_tenant_time", "organization_id", "created_at"),
    Index("ix_llm_call_telemetry_provider_time", "provider", "created_at"),
    Index("ix_llm_call_telemetry_request", "request_id"),
    Index(
        SQLITE_SUMS,
        "series_id",
        "created_at",
        "latency_bin",
        "ttft_bin",
        "success",
        "cached",
        "input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "cost_nano",
        "cost_rest",
        "latency_ms",
    ),
    Index(
        "ix_llm_call_telemetry_failures",
        "created_at",
        sqlite_where=text("NOT success"),
        postgresql_where=text("NOT success"),
    ),
)

AGENT_RUNS = Table(
    "agent_runs",
    metadata,
    Column("created_at", UtcTime, nullable=False),
    Column("is_task", Boolean, nullable=False),
    Column("success", Boolean),
    Column("duration_bin", SmallInteger, nullable=False),
    Column("duration_ms", Float(53), nullable=False),
    Column("violations", Integer, nullable=False),
    Column("llm_calls", Integer, nullable=False),
    Column("unpriced_calls", Integer, nullable=False),
    Column("tool_calls", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    *_money(),
    Column("run_id", Text, primary_key=True),
    Column("parent_id", Text),
    Column("operation", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("workflow", Text),
    Column("agent", Text),
    Column("status", Text, nullable=False),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("organization_id", Text),
    Column("user_id", Text),
    Column("session_id", Text),
    Column("request_id", Text, nullable=False),
    Column("trace_id", Text),
    Column("step_id", Text),
    Column("task_id", Text),
    Column("experiment", Text),
    Column("variant", Text),
    Index("ix_agent_runs_time", "created_at"),
    Index("ix_agent_runs_tenant_time", "organization_id", "created_at"),
    Index("ix_agent_runs_request", "request_id"),
    Index("ix_agent_runs_tasks", "created_at", sqlite_where=text("is_task"), postgresql_where=text("is_task")),
)

FEEDBACK = Table(
    "user_feedback",
    metadata,
    Column("created_at", UtcTime, nullable=False),
    Column("correct", Boolean, nullable=False),
    Column("revision", Boolean, nullable=False),
    Column("feedback_id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("organization_id", Text),
    Column("user_id", Text),
    Column("workflow", Text),
    Column("agent", Text),
    Column("prompt_name", Text),
    Column("experiment", Text),
    Column("variant", Text),
    Index("ix_user_feedback_time", "created_at"),
    Index("ix_user_feedback_request", "request_id"),
)

VIOLATIONS = Table(
    "policy_violations",
    metadata,
    Column("created_at", UtcTime, nullable=False),
    Column("violation_id", Text, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("request_id", Text),
    Column("workflow", Text),
    Column("agent", Text),
    Column("tool", Text),
    Column("organization_id", Text),
    Column("user_id", Text),
    Index("ix_policy_violations_time", "created_at"),
)
"""Denials by policies: what the golden signal counts, inside a run or not."""

SUMMARIES = Table(
    "llm_usage_summaries",
    metadata,
    Column("period", Text, primary_key=True),  # hourly | daily
    Column("period_start", UtcTime, primary_key=True),
    Column("organization_id", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model_name", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("prompt_name", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("priced", BigInteger, nullable=False),
    Column("cache_hits", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("cost_rest", BigInteger, nullable=False),
    Column("latency_total_ms", Float(53), nullable=False),
    Column("latency_sketch", LargeBinary, nullable=False),
    Column("ttft_sketch", LargeBinary),
    Column("errors", Text),  # JSON: how many failures of each type
    Index("ix_llm_usage_summaries_tenant_time", "organization_id", "period", "period_start"),
)

SUMMARY_WORK = Table(
    "llm_summary_work",
    metadata,
    Column("work_id", BIG_ID, primary_key=True, autoincrement=True),
    Column("period", Text, nullable=False),
    Column("period_start", UtcTime, nullable=False),
    Column("claimed", Boolean, nullable=False),
    Index("ix_llm_summary_work", "period", "period_start"),
    sqlite_autoincrement=True,  # a number that was deleted must not come back: whoever summed up deletes by number
)
"""Which hours and days changed since they were summed up. Writers look for a line and add one where there is none, so
they never wait for each other. Whoever sums up claims a line first, which makes later writers add another."""

STATE = Table(
    "store_state",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", UtcTime, nullable=False),
)
"""Marks that all processes share: up to when which table was pruned."""

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
    Column("reserved_units", BigInteger, nullable=False),
    Column("reserved_rest", BigInteger, nullable=False),
    Column("refusals", BigInteger, nullable=False),
    Column("alerted_permille", Integer, nullable=False),  # the highest threshold that was alerted in this period
    Column("updated_at", UtcTime, nullable=False),
    # the part of spent_* that was booked by estimate, because nothing states what the call cost
    Column("assumed_units", BigInteger, nullable=False, server_default="0"),
    Column("assumed_rest", BigInteger, nullable=False, server_default="0"),
)

BUDGET_RESERVATIONS = Table(
    "budget_reservations",
    metadata,
    Column("reservation_id", Text, primary_key=True),
    Column("budget", Text, nullable=False),
    Column("scope_key", Text, nullable=False),
    Column("period_start", UtcTime, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("rest", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
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
