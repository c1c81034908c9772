"""The tables of the telemetry store, as the queries of this package see them.

The migrations draw them; a test compares both. Times are UTC: `TIMESTAMP WITH TIME ZONE` on PostgreSQL, microseconds
since the Unix epoch on SQLite. Money is two integers (see `money`), beside which the database itself shows a readable
`cost`. A dimension that is unknown is the empty text in tables that group by it, and NULL in rows.

Numbers stand first in a row: SQLite reads a row up to the column that is asked for. A column that a later version added
carries that version, so that this code can also use tables that lack it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
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

from taskpilot_obs._support.timestamps import EPOCH, MICROSECOND
from taskpilot_obs.store import on_clickhouse


def to_microseconds(moment: datetime) -> int:
    """Microseconds since the Unix epoch of an aware time; exact, unlike `datetime.timestamp`."""
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The time, in UTC, so many microseconds after the Unix epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`TIMESTAMP WITH TIME ZONE` where there is one."""
        if dialect.name == on_clickhouse.DIALECT:
            return dialect.type_descriptor(DateTime())
        return dialect.type_descriptor(TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """What the driver gets."""
        if value is None or dialect.name == "postgresql":
            return value
        if dialect.name == on_clickhouse.DIALECT:
            return on_clickhouse.moment_text(value)
        return to_microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """What the driver gave, in UTC."""
        if value is None:
            return None
        if dialect.name == on_clickhouse.DIALECT:
            given: datetime = value
            return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
        return value.astimezone(UTC) if dialect.name == "postgresql" else from_microseconds(value)


metadata = MetaData()

BIG_ID: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself in a column of type INTEGER only."""


TOKENS: Final = ("input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "cache_write_tokens")
"""The columns of a call's tokens, but for their total."""
SUMMED: Final = (*TOKENS, "cost_nano", "cost_rest")
"""The columns of a call that are added up under their own names."""
NEWEST: Final = "0005"
"""The version of the tables as they are written here."""
SINCE: Final = "since"
"""In a column's `info`: the version of the tables that added it; without, the first."""


def columns(kind: type[TypeEngine[Any]] | TypeEngine[Any], *names: str, nullable: bool = True) -> list[Column[Any]]:
    """Columns of one type, in order."""
    return [Column(name, kind, nullable=nullable) for name in names]


def added_columns(kind: type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Columns of one type that version 0004 of the tables added."""
    return [added(name, kind) for name in names]


def added(name: str, kind: type[TypeEngine[Any]] | TypeEngine[Any], since: str = "0004") -> Column[Any]:
    """A column that a later version of the tables added; NULL in rows that were written before."""
    return Column(name, kind, info={SINCE: since})


def columns_of(table: Table, version: str) -> tuple[str, ...]:
    """The columns that a table has in this version, in order."""
    return tuple(column.name for column in table.columns if column.info.get(SINCE, "") <= version)


def _money() -> list[Column[Any]]:
    return [Column("cost_nano", BigInteger), Column("cost_rest", SmallInteger)]


def _where_stated(name: str, column: str) -> Index:
    """An index by an identifier and time that takes no room for rows without it."""
    stated = text(f"{column} IS NOT NULL")
    return Index(name, column, "created_at", sqlite_where=stated, postgresql_where=stated)


LLM_SERIES = Table(
    "llm_series",
    metadata,
    Column("series_id", Integer, primary_key=True),
    *columns(Text, "provider", "model_name", "agent", nullable=False),
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
    *columns(BigInteger, *TOKENS, "total_tokens"),
    *_money(),
    Column("latency_ms", Float(53), nullable=False),
    Column("time_to_first_token_ms", Float(53)),
    Column("telemetry_id", Text, primary_key=True),
    *columns(
        Text,
        "organization_id",
        "user_id",
        "session_id",
        "llm_key",
        "provider",
        "model_name",
        "prompt_name",
        "step_id",
        "task_id",
        "workflow_run_id",
        "thought_id",
        "parent_id",
    ),
    Column("request_id", Text, nullable=False),
    *columns(Text, "trace_id", "agent", "workflow", "cost_source"),
    Column("status", Text, nullable=False),
    *columns(Text, "error_type", "error_category", "error_message", "experiment", "variant"),
    *added_columns(Text, "service", "environment", "operation"),
    added("request_model", Text),  # as the caller spelt it; `model_name` is the canonical name
    added("response_model", Text),  # as the provider spelt it
    added("service_tier", Text),
    added("pricing", SmallInteger),  # what is known of the cost, see `rows.PRICING`
    added("partial_reason", Text),  # why the cost is known to lack something; NULL: it is whole, or unknown
    added("retries", Integer),
    *added_columns(BigInteger, "input_length", "output_length"),
    *added_columns(Text, "span_id", "prompt_hash"),
    added("experiment_unit", Text),  # the user or session that an experiment assigned to its variant
    Index("ix_llm_call_telemetry_time", "created_at"),
    Index("ix_llm_call_telemetry_tenant_time", "organization_id", "created_at"),
    Index("ix_llm_call_telemetry_provider_time", "provider", "created_at"),
    Index("ix_llm_call_telemetry_request", "request_id"),
    _where_stated("ix_llm_call_telemetry_user_time", "user_id"),
    _where_stated("ix_llm_call_telemetry_session_time", "session_id"),
    _where_stated("ix_llm_call_telemetry_task_time", "task_id"),
    _where_stated("ix_llm_call_telemetry_workflow_run_time", "workflow_run_id"),
    Index(
        SQLITE_SUMS,
        "series_id",
        "created_at",
        "latency_bin",
        "ttft_bin",
        "success",
        "cached",
        *SUMMED,
        "latency_ms",
        "pricing",
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
    *columns(Integer, "violations", "llm_calls", "unpriced_calls", "tool_calls", nullable=False),
    *columns(BigInteger, "input_tokens", "output_tokens", nullable=False),
    *_money(),
    Column("run_id", Text, primary_key=True),
    Column("parent_id", Text),
    *columns(Text, "operation", "name", nullable=False),
    *columns(Text, "workflow", "agent"),
    Column("status", Text, nullable=False),
    *columns(Text, "error_type", "error_message", "organization_id", "user_id", "session_id"),
    Column("request_id", Text, nullable=False),
    *columns(Text, "trace_id", "step_id", "task_id", "experiment", "variant"),
    *added_columns(Text, "service", "environment", "workflow_run_id", "thought_id", "prompt_name"),
    *added_columns(BigInteger, "input_length", "output_length"),
    *added_columns(Text, "span_id", "experiment_unit"),
    Index("ix_agent_runs_time", "created_at"),
    _where_stated("ix_agent_runs_user_time", "user_id"),
    Index("ix_agent_runs_tenant_time", "organization_id", "created_at"),
    Index("ix_agent_runs_request", "request_id"),
    Index("ix_agent_runs_tasks", "created_at", sqlite_where=text("is_task"), postgresql_where=text("is_task")),
)

FEEDBACK = Table(
    "user_feedback",
    metadata,
    Column("created_at", UtcTime, nullable=False),
    *columns(Boolean, "correct", "revision", nullable=False),
    Column("feedback_id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    *columns(Text, "organization_id", "user_id", "workflow", "agent", "prompt_name", "experiment", "variant"),
    *added_columns(Text, "service", "environment", "session_id"),
    added("comment", Text),  # redacted
    added("experiment_unit", Text),
    Index("ix_user_feedback_time", "created_at"),
    _where_stated("ix_user_feedback_user_time", "user_id"),
    _where_stated("ix_user_feedback_tenant_time", "organization_id"),
    Index("ix_user_feedback_request", "request_id"),
)

VIOLATIONS = Table(
    "policy_violations",
    metadata,
    Column("created_at", UtcTime, nullable=False),
    Column("violation_id", Text, primary_key=True),
    *columns(Text, "policy", "severity", "result", nullable=False),
    *columns(Text, "request_id", "workflow", "agent", "tool", "organization_id", "user_id"),
    *added_columns(Text, "service", "environment", "session_id"),
    added("run_id", Text),  # of the run that the policy refused, or watched
    added("trace_id", Text),
    Index("ix_policy_violations_time", "created_at"),
    _where_stated("ix_policy_violations_user_time", "user_id"),
    _where_stated("ix_policy_violations_tenant_time", "organization_id"),
)
"""Denials by policies: what the golden signal counts, inside a run or not."""

SUMMARIES = Table(
    "llm_usage_summaries",
    metadata,
    Column("period", Text, primary_key=True),  # hourly | daily, alone or with the roll-up (see `rollups`)
    Column("period_start", UtcTime, primary_key=True),
    Column("organization_id", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model_name", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("prompt_name", Text, primary_key=True),
    Column("service", Text, primary_key=True, info={SINCE: "0004"}),
    Column("environment", Text, primary_key=True, info={SINCE: "0004"}),
    *columns(BigInteger, "requests", "successes", "failures", "priced", "cache_hits", *SUMMED, nullable=False),
    Column("refused", BigInteger, nullable=False, server_default="0", info={SINCE: "0004"}),
    Column("partly_priced", BigInteger, nullable=False, server_default="0", info={SINCE: "0004"}),
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
    added("lacking", SmallInteger),  # roll-ups that are not made for this period (see `rollups`), else NULL
    Index("ix_llm_summary_work", "period", "period_start"),
    sqlite_autoincrement=True,  # a number that was deleted must not come back, because claims are deleted by number
)
"""Which hours and days changed since they were summed up. Writers look for a line and add one where there is none, so
they never wait for each other. A process that sums up claims a line first, which makes later writers add another."""

STATE = Table(
    "store_state",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", UtcTime, nullable=False),
)
"""Marks that all processes share: from when on and up to when rows of which table were deleted."""
