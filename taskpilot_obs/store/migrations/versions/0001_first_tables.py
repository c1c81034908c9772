"""The first tables.

With the TimescaleDB extension in the database, calls and runs become hypertables, whose primary key must contain the
time; nothing else depends on the extension.
"""

from __future__ import annotations

from decimal import Decimal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _has_timescale() -> bool:
    if not _on_postgresql():
        return False
    query = sa.text("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'")
    return bool(op.get_bind().execute(query).scalar_one())


def _hypertable_key() -> tuple[str, ...]:
    return ("created_at",) if _has_timescale() else ()


def _readable_cost() -> sa.Column[Decimal]:
    """What a person reads: exact on PostgreSQL, a float that takes no room on SQLite."""
    formula = "cost_nano * 0.000000001 + cost_rest * 0.000000000001"
    return sa.Column("cost", sa.Numeric(24, 12), sa.Computed(formula, persisted=_on_postgresql()))


def _series() -> None:
    op.create_table(
        "llm_series",
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("series_id"),
    )
    op.create_index("ux_llm_series", "llm_series", ["provider", "model_name", "agent"], unique=True)


def _llm_calls() -> None:
    op.create_table(
        "llm_call_telemetry",
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("success", sa.Boolean()),
        sa.Column("cached", sa.Boolean()),
        sa.Column("streaming", sa.Boolean(), nullable=False),
        sa.Column("latency_bin", sa.SmallInteger(), nullable=False),
        sa.Column("ttft_bin", sa.SmallInteger()),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("reasoning_tokens", sa.BigInteger()),
        sa.Column("cached_tokens", sa.BigInteger()),
        sa.Column("cache_write_tokens", sa.BigInteger()),
        sa.Column("total_tokens", sa.BigInteger()),
        sa.Column("cost_nano", sa.BigInteger()),
        sa.Column("cost_rest", sa.SmallInteger()),
        _readable_cost(),
        sa.Column("latency_ms", sa.Float(53), nullable=False),
        sa.Column("time_to_first_token_ms", sa.Float(53)),
        sa.Column("telemetry_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text()),
        sa.Column("user_id", sa.Text()),
        sa.Column("session_id", sa.Text()),
        sa.Column("llm_key", sa.Text()),
        sa.Column("provider", sa.Text()),
        sa.Column("model_name", sa.Text()),
        sa.Column("prompt_name", sa.Text()),
        sa.Column("step_id", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("workflow_run_id", sa.Text()),
        sa.Column("thought_id", sa.Text()),
        sa.Column("parent_id", sa.Text()),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text()),
        sa.Column("agent", sa.Text()),
        sa.Column("workflow", sa.Text()),
        sa.Column("cost_source", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_category", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("experiment", sa.Text()),
        sa.Column("variant", sa.Text()),
        sa.PrimaryKeyConstraint("telemetry_id", *_hypertable_key()),
    )
    _llm_call_indexes()


def _llm_call_indexes() -> None:
    op.create_index("ix_llm_call_telemetry_provider_time", "llm_call_telemetry", ["provider", "created_at"])
    op.create_index("ix_llm_call_telemetry_request", "llm_call_telemetry", ["request_id"])
    op.create_index(
        "ix_llm_call_telemetry_failures",
        "llm_call_telemetry",
        ["created_at"],
        sqlite_where=sa.text("NOT success"),
        postgresql_where=sa.text("NOT success"),
    )
    op.create_index("ix_llm_call_telemetry_time", "llm_call_telemetry", ["created_at"])
    op.create_index("ix_llm_call_telemetry_tenant_time", "llm_call_telemetry", ["organization_id", "created_at"])


def _llm_sums() -> None:
    """What SQLite adds up without sorting, and without looking at the rows."""
    summed = ["series_id", "created_at", "latency_bin", "ttft_bin", "success", "cached", "input_tokens"]
    summed += ["output_tokens", "reasoning_tokens", "cached_tokens", "cache_write_tokens"]
    summed += ["cost_nano", "cost_rest", "latency_ms"]
    op.create_index("ix_llm_call_telemetry_sums", "llm_call_telemetry", summed)


def _agent_runs() -> None:
    op.create_table(
        "agent_runs",
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("is_task", sa.Boolean(), nullable=False),
        sa.Column("success", sa.Boolean()),
        sa.Column("duration_bin", sa.SmallInteger(), nullable=False),
        sa.Column("duration_ms", sa.Float(53), nullable=False),
        sa.Column("violations", sa.Integer(), nullable=False),
        sa.Column("llm_calls", sa.Integer(), nullable=False),
        sa.Column("unpriced_calls", sa.Integer(), nullable=False),
        sa.Column("tool_calls", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger()),
        sa.Column("cost_rest", sa.SmallInteger()),
        _readable_cost(),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text()),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text()),
        sa.Column("agent", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("organization_id", sa.Text()),
        sa.Column("user_id", sa.Text()),
        sa.Column("session_id", sa.Text()),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text()),
        sa.Column("step_id", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("experiment", sa.Text()),
        sa.Column("variant", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", *_hypertable_key()),
    )
    op.create_index("ix_agent_runs_tenant_time", "agent_runs", ["organization_id", "created_at"])
    op.create_index("ix_agent_runs_time", "agent_runs", ["created_at"])
    op.create_index(
        "ix_agent_runs_tasks",
        "agent_runs",
        ["created_at"],
        sqlite_where=sa.text("is_task"),
        postgresql_where=sa.text("is_task"),
    )
    op.create_index("ix_agent_runs_request", "agent_runs", ["request_id"])


def _feedback() -> None:
    op.create_table(
        "user_feedback",
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("correct", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Boolean(), nullable=False),
        sa.Column("feedback_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text()),
        sa.Column("user_id", sa.Text()),
        sa.Column("workflow", sa.Text()),
        sa.Column("agent", sa.Text()),
        sa.Column("prompt_name", sa.Text()),
        sa.Column("experiment", sa.Text()),
        sa.Column("variant", sa.Text()),
        sa.PrimaryKeyConstraint("feedback_id"),
    )
    op.create_index("ix_user_feedback_request", "user_feedback", ["request_id"])
    op.create_index("ix_user_feedback_time", "user_feedback", ["created_at"])


def _violations() -> None:
    op.create_table(
        "policy_violations",
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("violation_id", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("workflow", sa.Text()),
        sa.Column("agent", sa.Text()),
        sa.Column("tool", sa.Text()),
        sa.Column("organization_id", sa.Text()),
        sa.Column("user_id", sa.Text()),
        sa.PrimaryKeyConstraint("violation_id"),
    )
    op.create_index("ix_policy_violations_time", "policy_violations", ["created_at"])


def _summaries() -> None:
    op.create_table(
        "llm_usage_summaries",
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("period_start", MOMENT, nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("prompt_name", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("successes", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("priced", sa.BigInteger(), nullable=False),
        sa.Column("cache_hits", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.Column("cost_rest", sa.BigInteger(), nullable=False),
        _readable_cost(),
        sa.Column("latency_total_ms", sa.Float(53), nullable=False),
        sa.Column("latency_sketch", sa.LargeBinary(), nullable=False),
        sa.Column("ttft_sketch", sa.LargeBinary()),
        sa.Column("errors", sa.Text()),
        sa.PrimaryKeyConstraint(
            "period", "period_start", "organization_id", "provider", "model_name", "agent", "prompt_name"
        ),
    )
    op.create_index(
        "ix_llm_usage_summaries_tenant_time", "llm_usage_summaries", ["organization_id", "period", "period_start"]
    )


def _summary_work() -> None:
    op.create_table(
        "llm_summary_work",
        sa.Column("work_id", BIG_ID, nullable=False, autoincrement=True),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("period_start", MOMENT, nullable=False),
        sa.Column("claimed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("work_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_llm_summary_work", "llm_summary_work", ["period", "period_start"])


def _state() -> None:
    op.create_table(
        "store_state",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )


def _budget_ledger() -> None:
    op.create_table(
        "budget_ledger",
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("scope_key", sa.Text(), nullable=False),
        sa.Column("period_start", MOMENT, nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("spent_units", sa.BigInteger(), nullable=False),
        sa.Column("spent_rest", sa.BigInteger(), nullable=False),
        sa.Column("reserved_units", sa.BigInteger(), nullable=False),
        sa.Column("reserved_rest", sa.BigInteger(), nullable=False),
        sa.Column("refusals", sa.BigInteger(), nullable=False),
        sa.Column("alerted_permille", sa.Integer(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("budget", "scope_key", "period_start"),
    )


def _budget_reservations() -> None:
    op.create_table(
        "budget_reservations",
        sa.Column("reservation_id", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("scope_key", sa.Text(), nullable=False),
        sa.Column("period_start", MOMENT, nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("rest", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("reservation_id"),
    )
    op.create_index("ix_budget_reservations_budget", "budget_reservations", ["budget", "scope_key", "period_start"])
    op.create_index("ix_budget_reservations_expiry", "budget_reservations", ["expires_at"])


def upgrade() -> None:
    """Draw every table."""
    _series()
    _llm_calls()
    if not _on_postgresql():
        _llm_sums()
    _agent_runs()
    _feedback()
    _violations()
    _summaries()
    _summary_work()
    _state()
    _budget_ledger()
    _budget_reservations()
    if _has_timescale():  # pragma: no cover  needs a server with the extension, which Debian does not ship
        for table in ("llm_call_telemetry", "agent_runs"):
            op.execute(f"SELECT create_hypertable('{table}', 'created_at')")
