"""The tables of a store in ClickHouse: drawn from those of `tables`, made, brought up to date and compared.

Every table is a `ReplacingMergeTree`: of rows with one sorting key, merges keep one, and `FINAL` shows one. The tables
of rows are sorted by time and ID, so that a stretch of time is read as one piece, and are partitioned by month.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

from taskpilot_obs.store.clickhouse_views import VIEWS
from taskpilot_obs.store.segments import NEVER_SUMMED
from taskpilot_obs.store.tables import (
    AGENT_RUNS,
    FEEDBACK,
    LLM_CALLS,
    LLM_SERIES,
    STATE,
    SUMMARIES,
    SUMMARY_WORK,
    VIOLATIONS,
    UtcTime,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection

ROW_TABLES: Final = (LLM_CALLS, AGENT_RUNS, FEEDBACK, VIOLATIONS)
_only_here: Final = MetaData()
WRITTEN: Final = Table("llm_written_hours", _only_here, Column("hour", UtcTime, primary_key=True))
"""When calls of an hour were written last: in its column `written_at`."""
SUMMED: Final = Table(
    "llm_summed_periods",
    _only_here,
    Column("period", Text, primary_key=True),
    Column("period_start", UtcTime, primary_key=True),
    Column("lacking", SmallInteger, nullable=False),  # roll-ups that are not made for this period (see `rollups`)
)
"""The hours and days that were summed up: what is written after their `written_at` may lack."""
_MADE: Final = (LLM_SERIES, *ROW_TABLES, SUMMARIES, STATE, WRITTEN, SUMMED)
TABLES: Final = (*_MADE, SUMMARY_WORK)
WRITTEN_AT: Final = "written_at"
"""When a row was written: of rows with one key, the last one counts."""
MAKE_VERSION: Final = (
    "CREATE TABLE IF NOT EXISTS {} (version_num String, min_code Nullable(String), only UInt8 DEFAULT 0, "
    "written_at DateTime64(6, 'UTC') DEFAULT now64(6)) ENGINE = ReplacingMergeTree(written_at) ORDER BY (only)"
)
"""The table of the version, which has one row."""


def _floor(moment: str, length: int) -> str:
    """The beginning of the stretch of so many microseconds that holds a moment, as SQL; also before 1970."""
    number = f"toUnixTimestamp64Micro({moment})"
    return f"fromUnixTimestamp64Micro({number} - positiveModulo({number}, {length}), 'UTC')"


_KINDS: Final = (
    (UtcTime, "DateTime64(6, 'UTC')"),
    (SmallInteger, "Int16"),
    (BigInteger, "Int64"),
    (Integer, "Int32"),
    (Boolean, "Bool"),
    (Float, "Float64"),
    (LargeBinary, "String"),
)
"""The more special type first."""
_UNBOUNDED: Final = frozenset(
    {
        "telemetry_id", "run_id", "feedback_id", "violation_id", "parent_id", "request_id", "trace_id", "span_id",
        "user_id", "session_id", "task_id", "workflow_run_id", "thought_id", "prompt_hash", "experiment_unit",
        "error_message", "comment",
    }
)  # fmt: skip
"""Texts of which nearly every row has its own: a dictionary of their values would be as large as the rows."""
_LOOKED_UP: Final = ("request_id", "user_id", "session_id")
"""Columns with an index that tells which blocks of rows cannot hold a value."""
_MONEY: Final = {
    "cost_nano": "CAST(intDiv(reinterpretAsInt128(cost), 1000) AS Nullable(Int64))",
    "cost_rest": "CAST(modulo(reinterpretAsInt128(cost), 1000) AS Nullable(Int16))",
}
"""What queries read of `cost`, a `Decimal(38, 12)`: whole nano-dollars, and the pico-dollars beyond."""


_HOUR: Final = 3_600_000_000


def hour_of(moment: str) -> str:
    """The beginning of the hour of a moment, as SQL."""
    return _floor(moment, _HOUR)


_NOTES: Final = f"""
    SELECT {hour_of("created_at")} AS hour, max({LLM_CALLS.name}.written_at) AS written_at
    FROM {LLM_CALLS.name} GROUP BY hour
"""  # noqa: S608  our names
_NOTE_WRITES: Final = (
    f"CREATE MATERIALIZED VIEW IF NOT EXISTS {WRITTEN.name}_of_calls TO {WRITTEN.name} AS {_NOTES}",
    f"INSERT INTO {WRITTEN.name} (hour, written_at) {_NOTES}",
)
"""The second is for the rows that were there before the view, and may be repeated."""
_SHOW_WORK: Final = f"""
    CREATE VIEW IF NOT EXISTS {SUMMARY_WORK.name} AS
    WITH
        hours AS (SELECT hour, max(written_at) AS changed_at FROM {WRITTEN.name} GROUP BY hour),
        periods AS (
            SELECT 'hourly' AS period, hour AS period_start, changed_at FROM hours
            UNION ALL
            SELECT 'daily' AS period, {_floor("hour", 24 * _HOUR)} AS period_start, max(changed_at) AS changed_at
            FROM hours GROUP BY period_start
        ),
        summed AS (
            SELECT period, period_start, max(written_at) AS summed_at, argMax(lacking, written_at) AS lacks
            FROM {SUMMED.name} GROUP BY period, period_start
        ),
        found AS (
            SELECT period, period_start, CAST(NULL AS Nullable(Int16)) AS lacking, changed_at
            FROM periods LEFT JOIN summed USING (period, period_start)
            WHERE ifNull(summed_at, toDateTime64(0, 3, 'UTC')) <= changed_at
            UNION ALL
            SELECT period, period_start, lacks, summed_at FROM summed WHERE lacks != 0
            UNION ALL
            SELECT period, period_start, {NEVER_SUMMED}, changed_at
            FROM periods LEFT ANTI JOIN summed USING (period, period_start) WHERE period = 'hourly'
        )
    SELECT
        CAST(0 AS Int64) AS work_id, CAST(period AS LowCardinality(String)) AS period, period_start,
        false AS claimed, lacking, changed_at
    FROM found
"""  # noqa: S608  our names


def statements(table: Table, there: Collection[str]) -> Iterator[str]:
    """What makes a table, or adds the columns that an older version of it lacks.

    Args:
        table: which one.
        there: its columns in the database; empty where it has no such table.
    """
    columns = dict(_columns(table))
    if there:
        yield from (
            f"ALTER TABLE {table.name} ADD COLUMN IF NOT EXISTS {name} {kind}"
            for name, kind in columns.items()
            if name not in there
        )
        return
    lines = [f"{name} {kind}" for name, kind in columns.items()]
    lines += [f"INDEX {index}" for index in _indexes(table).values()]
    parts = "PARTITION BY toYYYYMM(created_at) PRIMARY KEY (created_at)" if table in ROW_TABLES else ""
    yield (
        f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(lines)}) "
        f"ENGINE = ReplacingMergeTree({WRITTEN_AT}) {parts} ORDER BY ({_sorting_key(table)})"
    )


def _indexes(table: Table) -> dict[str, str]:
    """How the skip indexes of a table are declared, by name."""
    columns = [name for name in _LOOKED_UP if name in table.c] if table in ROW_TABLES else []
    return {f"ix_{name}": f"ix_{name} {name} TYPE bloom_filter(0.01) GRANULARITY 4" for name in columns}


def _sorting_key(table: Table) -> str:
    key = [column.name for column in table.primary_key]
    return ", ".join(["created_at", *key] if table in ROW_TABLES else key)


def _columns(table: Table) -> Iterator[tuple[str, str]]:
    for column in table.columns:
        if table in ROW_TABLES and column.name in _MONEY:
            if column.name == "cost_nano":
                yield "cost", "Nullable(Decimal(38, 12)) CODEC(ZSTD(1))"
            yield column.name, f"{kind_of(column)} ALIAS {_MONEY[column.name]}"
        elif column.name == "created_at":
            yield column.name, f"{kind_of(column)} CODEC(Delta(8), ZSTD(1))"
        else:
            yield column.name, f"{kind_of(column)} CODEC(ZSTD(1))"
    yield WRITTEN_AT, "DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1))"


def kind_of(column: Column[Any]) -> str:
    """The type of a column in ClickHouse's words."""
    if column.name == "series_id":
        return "Int64"  # a digest: nothing here gives out numbers one by one
    kind = next((words for cls, words in _KINDS if isinstance(column.type, cls)), "String")
    if column.nullable:
        kind = f"Nullable({kind})"
    is_name = kind.endswith(("String", "String)")) and not isinstance(column.type, LargeBinary)
    return f"LowCardinality({kind})" if is_name and column.name not in _UNBOUNDED else kind


def make_tables(connection: Connection) -> None:
    """Make every table and view that is missing, and add every column; harmless where all are there."""
    there, indexes = _columns_there(connection), _indexes_there(connection)
    for table in _MADE:
        for statement in statements(table, there.get(table.name, ())):
            connection.execute(text(statement))
        if table.name in there:
            for name in _indexes(table).keys() - indexes.get(table.name, ()):
                _add_index(connection, table, name)
    if not has_sums(connection):
        for statement in _NOTE_WRITES:
            connection.execute(text(statement))
        connection.execute(text(f"DROP TABLE IF EXISTS {SUMMARY_WORK.name}"))
        connection.execute(text(_SHOW_WORK))
    for name, query in VIEWS.items():
        connection.execute(text(f"CREATE VIEW IF NOT EXISTS {name} AS {query}"))


def _add_index(connection: Connection, table: Table, name: str) -> None:
    """Add a skip index; the server builds it for the rows that are there without being waited for."""
    connection.execute(text(f"ALTER TABLE {table.name} ADD INDEX IF NOT EXISTS {_indexes(table)[name]}"))
    build = f"ALTER TABLE {table.name} MATERIALIZE INDEX {name} SETTINGS mutations_sync = 0"
    connection.execute(text(build))


def has_sums(connection: Connection) -> bool:
    """Whether the tables are of the version that keeps summaries: `llm_summary_work` was an empty table before."""
    asked = text(
        "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = :name SETTINGS final = 0"
    )
    return connection.execute(asked, {"name": SUMMARY_WORK.name}).scalar() == "View"


def differences_of(connection: Connection) -> Iterator[str]:
    """What differs between the tables that are there and those that this code expects."""
    there, keys = _columns_there(connection), _sorting_keys_there(connection)
    indexes = _indexes_there(connection)
    for expected in TABLES:
        columns = there.get(expected.name)
        if columns is None:
            yield f"{expected.name}: the table is missing"
            continue
        for column in expected.columns:
            wanted, found = kind_of(column), columns.get(column.name)
            if found is None:
                yield f"{expected.name}: the column {column.name} is missing"
            elif found != wanted:
                yield f"{expected.name}: the column {column.name} is {found}, and should be {wanted}"
        for name in sorted(_indexes(expected).keys() - indexes.get(expected.name, ())):
            yield f"{expected.name}: the index {name} is missing"
        if expected in _MADE and (key := keys[expected.name]) != _sorting_key(expected):
            yield f"{expected.name}: it is sorted by ({key}), and should be by ({_sorting_key(expected)})"


def _columns_there(connection: Connection) -> dict[str, dict[str, str]]:
    """The types of the columns that the database has, by table and name."""
    asked = text("SELECT table, name, type FROM system.columns WHERE database = currentDatabase() SETTINGS final = 0")
    there: dict[str, dict[str, str]] = {}
    for table, name, kind in connection.execute(asked):
        there.setdefault(table, {})[name] = kind
    return there


def _indexes_there(connection: Connection) -> dict[str, set[str]]:
    """The names of the skip indexes that the database has, by table."""
    asked = "SELECT table, name FROM system.data_skipping_indices WHERE database = currentDatabase() SETTINGS final = 0"
    there: dict[str, set[str]] = {}
    for table, name in connection.execute(text(asked)):
        there.setdefault(table, set()).add(name)
    return there


def _sorting_keys_there(connection: Connection) -> dict[str, str]:
    """What the tables of the database are sorted by; one column may stand in brackets of its own."""
    asked = "SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase() SETTINGS final = 0"
    return {name: key.strip("()") for name, key in connection.execute(text(asked))}


def size_of(connection: Connection) -> int:
    """How many bytes the tables take on the disk of the server."""
    asked = text(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() SETTINGS final = 0"
    )
    return int(connection.execute(asked).scalar() or 0)
