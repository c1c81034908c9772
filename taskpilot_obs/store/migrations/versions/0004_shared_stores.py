"""Who writes, roll-ups beside the full summaries, benchmark runs, indexes to find and erase one subject, and views.

Only columns, tables, indexes and views are added, all of which may be empty: code of the versions before reads and writes these tables
too. Its own summing up is refused by the database, because the key of the summaries has two more columns.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")
ADDED = {
    "llm_call_telemetry": (
        *(("service", sa.Text()), ("environment", sa.Text()), ("operation", sa.Text())),
        *(("request_model", sa.Text()), ("response_model", sa.Text()), ("service_tier", sa.Text())),
        *(("pricing", sa.SmallInteger()), ("partial_reason", sa.Text()), ("retries", sa.Integer())),
        *(("input_length", sa.BigInteger()), ("output_length", sa.BigInteger())),
        *(("span_id", sa.Text()), ("prompt_hash", sa.Text()), ("experiment_unit", sa.Text())),
    ),
    "agent_runs": (
        *(("service", sa.Text()), ("environment", sa.Text())),
        *(("workflow_run_id", sa.Text()), ("thought_id", sa.Text()), ("prompt_name", sa.Text())),
        *(("input_length", sa.BigInteger()), ("output_length", sa.BigInteger())),
        *(("span_id", sa.Text()), ("experiment_unit", sa.Text())),
    ),
    "user_feedback": (
        *(("service", sa.Text()), ("environment", sa.Text()), ("session_id", sa.Text())),
        *(("comment", sa.Text()), ("experiment_unit", sa.Text())),
    ),
    "policy_violations": (
        *(("service", sa.Text()), ("environment", sa.Text())),
        *(("session_id", sa.Text()), ("run_id", sa.Text()), ("trace_id", sa.Text())),
    ),
    "llm_summary_work": (("lacking", sa.SmallInteger()),),
    "budget_ledger": (("limit_units", sa.BigInteger()), ("limit_rest", sa.BigInteger())),
}
INDEXES = (
    ("ix_llm_call_telemetry_user_time", "llm_call_telemetry", "user_id"),
    ("ix_llm_call_telemetry_task_time", "llm_call_telemetry", "task_id"),
    ("ix_llm_call_telemetry_workflow_run_time", "llm_call_telemetry", "workflow_run_id"),
    ("ix_agent_runs_user_time", "agent_runs", "user_id"),
    ("ix_user_feedback_user_time", "user_feedback", "user_id"),
    ("ix_user_feedback_tenant_time", "user_feedback", "organization_id"),
    ("ix_policy_violations_user_time", "policy_violations", "user_id"),
    ("ix_policy_violations_tenant_time", "policy_violations", "organization_id"),
)
SUMMARIES = "llm_usage_summaries"
OLD_KEY = ("period", "period_start", "organization_id", "provider", "model_name", "agent", "prompt_name")
NEW_KEY = (*OLD_KEY, "service", "environment")
SUMS = (
    *("requests", "successes", "failures", "priced", "cache_hits", "input_tokens", "output_tokens"),
    *("reasoning_tokens", "cached_tokens", "cache_write_tokens", "cost_nano", "cost_rest"),
)
ADDED_SUMS = ("refused", "partly_priced")
REST = ("latency_total_ms", "latency_sketch", "ttft_sketch", "errors")
SUMMED = (
    *("series_id", "created_at", "latency_bin", "ttft_bin", "success", "cached", "input_tokens"),
    *("output_tokens", "reasoning_tokens", "cached_tokens", "cache_write_tokens"),
    *("cost_nano", "cost_rest", "latency_ms"),
)
_LARGEST = 9_000_000_000 * 10**9


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def upgrade() -> None:
    """Add: what keeps writers out of their tables comes last."""
    _benchmarks()
    _widen_summaries()
    _put(_merged(("organization_id",), ".tenants"))
    _put(_merged(("provider", "model_name", "agent"), ".series"))
    for name, table, column in INDEXES:  # PostgreSQL has them already, see `index_builds`
        stated = sa.text(f"{column} IS NOT NULL")
        columns = [column, "created_at"]
        op.create_index(name, table, columns, sqlite_where=stated, postgresql_where=stated, if_not_exists=True)
    for table, added in ADDED.items():
        for name, kind in added:
            op.add_column(table, sa.Column(name, kind))
    _sums_index("pricing")
    for name, query in _views().items():
        op.execute(sa.text(f"CREATE VIEW {name} AS {query}"))


def downgrade() -> None:
    """Take away what was added; summaries of services and environments become one line again."""
    for name in reversed(_views()):
        op.execute(sa.text(f"DROP VIEW IF EXISTS {name}"))
    op.drop_table("benchmark_calls")
    op.drop_table("benchmark_runs")
    _note_merged_services()
    _keep_sums_without_names()
    _narrow_summaries()
    _sums_index()
    for name, table, _ in INDEXES:
        op.drop_index(name, table)
    # Periods without full summaries are read from rows: an unclaimed mark is what older code understands.
    op.execute(sa.text("UPDATE llm_summary_work SET claimed = false WHERE lacking IS NOT NULL"))
    for table, columns in ADDED.items():
        for name, _ in columns:
            op.drop_column(table, name)


def _sums_index(*more: str) -> None:
    """Replace SQLite's index of all that is summed up."""
    if _on_postgresql():
        return
    op.drop_index("ix_llm_call_telemetry_sums", "llm_call_telemetry")
    op.create_index("ix_llm_call_telemetry_sums", "llm_call_telemetry", [*SUMMED, *more])


def _widen_summaries() -> None:
    if _on_postgresql():
        for name in ADDED_SUMS:
            op.add_column(SUMMARIES, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
        for name in ("service", "environment"):
            op.add_column(SUMMARIES, sa.Column(name, sa.Text(), nullable=False, server_default=""))
        op.execute(sa.text(f"ALTER TABLE {SUMMARIES} DROP CONSTRAINT {SUMMARIES}_pkey"))
        op.create_primary_key(f"{SUMMARIES}_pkey", SUMMARIES, list(NEW_KEY))
        return
    names = ", ".join((*OLD_KEY, *SUMS, *REST))
    _redraw(NEW_KEY)
    op.execute(sa.text(f"INSERT INTO {SUMMARIES} ({names}) SELECT {names} FROM {SUMMARIES}_old"))  # noqa: S608  constants
    op.drop_table(f"{SUMMARIES}_old")
    _index()


def _note_merged_services() -> None:
    """Before which moment no later version can tell services and environments apart, in rows or in sums of deleted ones."""
    told = "service <> '' OR environment <> ''"
    # Whole hours, because a sum of one cannot be divided once its rows are gone.
    hour = "date_trunc('hour', created_at) + interval '1 hour'" if _on_postgresql() else "(created_at / 3600000000 + 1) * 3600000000"
    rows = f"SELECT {hour} AS value FROM llm_call_telemetry WHERE {told} ORDER BY created_at DESC LIMIT 1"  # noqa: S608  constants
    sums = (
        "SELECT value FROM store_state WHERE key = 'pruned_before:llm_call_telemetry' "
        f"AND EXISTS (SELECT 1 FROM {SUMMARIES} WHERE {told})"  # noqa: S608  constants
    )
    for found in (rows, sums):
        _note("services_merged_before", found)


def _keep_sums_without_names() -> None:
    """Keep the sums of deleted calls that no full line tells: by series alone, under no tenant and no prompt."""
    hours = (
        "SELECT work.period_start FROM llm_summary_work AS work JOIN store_state AS state "
        "ON state.key = 'pruned_before:llm_call_telemetry' AND work.period_start < state.value "
        "WHERE work.period = 'hourly' AND work.lacking IS NOT NULL"
    )
    nameless = f"{hours} AND (work.lacking & 1) <> 0"
    hour = "interval '1 hour'" if _on_postgresql() else "3600000000"
    newest = f"SELECT period_start + {hour} AS value FROM ({nameless}) AS found ORDER BY period_start DESC LIMIT 1"  # noqa: S608  constants
    _note("tenants_merged_before", newest)
    kept = f"UPDATE {SUMMARIES} SET period = 'hourly' WHERE period = 'hourly.series' AND period_start IN ({nameless})"  # noqa: S608  constants
    op.execute(sa.text(kept))
    # Their marks would send older code to the rows, which are gone.
    done = f"DELETE FROM llm_summary_work WHERE period = 'hourly' AND lacking IS NOT NULL AND period_start IN ({hours})"  # noqa: S608  constants
    op.execute(sa.text(done))


def _note(key: str, query: str) -> None:
    """Put a moment into `store_state`, unless a later one is there."""
    later = "CASE WHEN excluded.value > store_state.value THEN excluded.value ELSE store_state.value END"
    put = f"INSERT INTO store_state (key, value) SELECT '{key}', value FROM ({query}) AS found WHERE true"  # noqa: S608  constants
    op.execute(sa.text(f"{put} ON CONFLICT (key) DO UPDATE SET value = {later}"))


def _narrow_summaries() -> None:
    lines = _merged(OLD_KEY[2:])
    if _on_postgresql():
        op.execute(sa.text(f"DELETE FROM {SUMMARIES}"))  # noqa: S608  a constant
        op.execute(sa.text(f"ALTER TABLE {SUMMARIES} DROP CONSTRAINT {SUMMARIES}_pkey"))
        for name in ("service", "environment", *ADDED_SUMS):
            op.drop_column(SUMMARIES, name)
        op.create_primary_key(f"{SUMMARIES}_pkey", SUMMARIES, list(OLD_KEY))
    else:
        _redraw(OLD_KEY)
        op.drop_table(f"{SUMMARIES}_old")
        _index()
    _put(lines)


def _put(lines: list[dict[str, Any]]) -> None:
    names = (*OLD_KEY, *SUMS, *REST)
    insert = f"INSERT INTO {SUMMARIES} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"  # noqa: S608  constants
    if lines:
        op.get_bind().execute(sa.text(insert), lines)


def _merged(dimensions: tuple[str, ...], suffix: str = "") -> list[dict[str, Any]]:
    """The full summaries, added up by these dimensions alone."""
    names = (*OLD_KEY, *SUMS, *REST)
    query = f"SELECT {', '.join(names)} FROM {SUMMARIES} WHERE period IN ('hourly', 'daily')"  # noqa: S608  constants
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in op.get_bind().execute(sa.text(query)):
        line = dict(zip(names, row, strict=True))
        line |= {name: "" for name in OLD_KEY[2:] if name not in dimensions}
        line["period"] += suffix
        key = tuple(line[name] for name in OLD_KEY)
        found[key] = _sum(found[key], line) if key in found else line
    return list(found.values())


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    added = {name: one[name] + other[name] for name in (*SUMS, "latency_total_ms")}
    added["cost_nano"] = min(added["cost_nano"], _LARGEST)
    for name in ("latency_sketch", "ttft_sketch"):  # two sketches merge by joining their bytes
        added[name] = bytes(one[name] or b"") + bytes(other[name] or b"") or (None if name == "ttft_sketch" else b"")
    failures = Counter(json.loads(one["errors"] or "{}")) + Counter(json.loads(other["errors"] or "{}"))
    added["errors"] = json.dumps(failures, sort_keys=True) if failures else None
    return {**one, **added}


def _redraw(key: tuple[str, ...]) -> None:
    """SQLite cannot change a key: make a new table beside the old one."""
    op.drop_index("ix_llm_usage_summaries_tenant_time", SUMMARIES)
    op.rename_table(SUMMARIES, f"{SUMMARIES}_old")
    start = sa.Column("period_start", MOMENT, nullable=False)
    texts = [sa.Column(name, sa.Text(), nullable=False) for name in OLD_KEY if name != "period_start"]
    if key == NEW_KEY:
        texts += [sa.Column(name, sa.Text(), nullable=False, server_default="") for name in ("service", "environment")]
    added: list[sa.Column[int]] = []
    if key == NEW_KEY:
        added = [sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in ADDED_SUMS]
    op.create_table(
        SUMMARIES,
        texts[0],
        start,
        *texts[1:],
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        *added,
        sa.Column("cost", sa.Numeric(24, 12), sa.Computed("cost_nano * 0.000000001 + cost_rest * 0.000000000001")),
        sa.Column("latency_total_ms", sa.Float(53), nullable=False),
        sa.Column("latency_sketch", sa.LargeBinary(), nullable=False),
        sa.Column("ttft_sketch", sa.LargeBinary()),
        sa.Column("errors", sa.Text()),
        sa.PrimaryKeyConstraint(*key),
    )


def _index() -> None:
    op.create_index(
        "ix_llm_usage_summaries_tenant_time", SUMMARIES, ["organization_id", "period", "period_start"], unique=False
    )


def _benchmarks() -> None:
    op.create_table(
        "benchmark_runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("name", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("service", sa.Text()),
        sa.Column("environment", sa.Text()),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("settings", sa.Text()),
        sa.Column("summary", sa.Text()),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_benchmark_runs_time", "benchmark_runs", ["created_at"])
    op.create_table(
        "benchmark_calls",
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text()) for name in ("provider", "model_name", "task", "item")),
        sa.Column("iteration", sa.Integer(), nullable=False),
        sa.Column("warm_up", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Boolean()) for name in ("success", "correct")),
        *(sa.Column(name, sa.Float(53)) for name in ("latency_ms", "time_to_first_token_ms", "lag_ms")),
        *(sa.Column(f"{name}_tokens", sa.BigInteger()) for name in ("input", "output", "reasoning", "cached")),
        sa.Column("cost_nano", sa.BigInteger()),
        sa.Column("cost_rest", sa.SmallInteger()),
        sa.Column("retries", sa.Integer()),
        *(sa.Column(name, sa.Text()) for name in ("error_type", "error_category", "prompt_hash", "telemetry_id")),
        sa.PrimaryKeyConstraint("call_id"),
    )
    op.create_index("ix_benchmark_calls_run", "benchmark_calls", ["run_id", "created_at"])


def _views() -> dict[str, str]:
    """Views for people and BI tools, with types that they know: times and days in UTC, USD, no value is NULL."""
    ended = "created_at" if _on_postgresql() else "strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch')"
    day = (
        "CAST(created_at AT TIME ZONE 'UTC' AS date)"
        if _on_postgresql()
        else "date(created_at / 1000000, 'unixepoch')"
    )
    return {
        "v_llm_calls": f"""
            SELECT {ended} AS ended_at, {day} AS day, telemetry_id, request_id, trace_id,
                organization_id AS tenant, user_id, session_id, service, environment, workflow, agent, prompt_name,
                step_id, task_id, workflow_run_id, thought_id, experiment, variant,
                provider, model_name AS model, operation, status, success, error_type, error_category, retries,
                streaming, cached, latency_ms, time_to_first_token_ms, input_tokens, output_tokens, reasoning_tokens,
                cached_tokens, cache_write_tokens, total_tokens, cost AS cost_usd, cost_source
            FROM llm_call_telemetry""",  # noqa: S608  constants
        "v_daily_costs": """
            SELECT day, tenant, provider, model, agent, count(*) AS requests,
                sum(CASE WHEN success THEN 0 WHEN success IS NULL THEN 0 ELSE 1 END) AS failures,
                sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
                sum(cost_usd) AS cost_usd, count(cost_usd) AS requests_with_known_cost
            FROM v_llm_calls GROUP BY day, tenant, provider, model, agent""",
        "v_daily_latency": """
            SELECT day, provider, model, max(calls) AS requests, avg(latency_ms) AS mean_ms,
                min(CASE WHEN 100 * place >= 50 * calls THEN latency_ms END) AS p50_ms,
                min(CASE WHEN 100 * place >= 95 * calls THEN latency_ms END) AS p95_ms,
                min(CASE WHEN 100 * place >= 99 * calls THEN latency_ms END) AS p99_ms
            FROM (
                SELECT day, provider, model, latency_ms,
                    row_number() OVER (PARTITION BY day, provider, model ORDER BY latency_ms) AS place,
                    count(*) OVER (PARTITION BY day, provider, model) AS calls
                FROM v_llm_calls
            ) AS ranked
            GROUP BY day, provider, model""",
    }
