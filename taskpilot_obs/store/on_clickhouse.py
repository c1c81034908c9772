"""What is particular to a store in ClickHouse: its connections, its settings and its spelling of SQL.

ClickHouse has no transactions, so it also has no snapshot that several queries share: an answer that is made of two
queries may see a batch in the second that the first did not. Rows are unique by their table's sorting key, and `FINAL`,
which every query gets by a setting, hides what was written twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, event
from sqlalchemy.exc import NoSuchModuleError

from taskpilot_obs.exceptions import MissingExtraError
from taskpilot_obs.store.urls import EMBEDDED, clickhouse_option

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection, Engine

    from taskpilot_obs.store.urls import StoreUrl

DIALECT: Final = "clickhousedb"
CLOCK: Final = "SELECT now64(6, 'UTC')"
_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "send_receive_timeout": 60,
    "client_name": "taskpilot-obs",
    "autogenerate_session_id": False,  # sessions refuse a second query while one runs
}
SETTINGS: Final = {
    "final": 1,  # a row that was written twice counts once, merged or not
    "do_not_merge_across_partitions_select_final": 1,  # one row is in one partition
    "use_skip_indexes_if_final": 1,
    "aggregate_functions_null_for_empty": 1,  # a sum over nothing is NULL, as in the SQL standard
    "join_use_nulls": 1,
    "cast_keep_nullable": 1,
    "input_format_null_as_default": 0,  # NULL in a column that allows none is refused, and not replaced
    "prefer_column_name_to_alias": 1,  # a condition means the column, and not what is selected under its name
    "mutations_sync": 2,  # a deletion has deleted when it returns
    "lightweight_deletes_sync": 2,
}
"""What makes ClickHouse answer as the other engines do."""
_FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2299, 12, 31, 23, 59, 59, tzinfo=UTC)


def is_on(connection: Connection) -> bool:
    """Whether a connection leads to ClickHouse."""
    return connection.dialect.name == DIALECT


def make_engine(target: StoreUrl) -> Engine:
    """An engine whose connections have the settings that the store relies on.

    Raises:
        MissingExtraError: the driver is not installed.
    """
    try:
        from clickhouse_connect import dbapi
        from clickhouse_connect.cc_sqlalchemy.sql.compiler import ChStatementCompiler
    except ImportError as error:
        raise MissingExtraError("a telemetry store on ClickHouse", "clickhouse") from error
    arguments = _arguments(target)
    if target.url.drivername == EMBEDDED:
        _make_database(arguments)
    try:
        engine = create_engine(
            f"{DIALECT}+connect://",
            creator=lambda: dbapi.connect(**arguments),
            pool_size=3,
            max_overflow=5,
            hide_parameters=True,
        )
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtraError("a telemetry store on ClickHouse", "clickhouse") from error
    engine.dialect.statement_compiler = _compiler(ChStatementCompiler)
    settings = {**SETTINGS, "async_insert": int(bool(target.options.get("async_insert")))}

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        for name, value in settings.items():
            connection.client.set_client_setting(name, value)

    return engine


def _arguments(target: StoreUrl) -> dict[str, Any]:
    if target.url.drivername == EMBEDDED:
        return {"dsn": f"chdb:///{str(target.url.database).lstrip('/')}", "database": target.schema or "default"}
    options = {name: clickhouse_option(name, value) for name, value in target.options.items() if name != "async_insert"}
    return {
        **_DEFAULTS,
        "host": target.url.host,
        "port": target.url.port,
        "username": target.url.username or "default",
        "password": target.url.password or "",
        "database": target.url.database or "default",
        **options,
    }


def _make_database(arguments: dict[str, Any]) -> None:
    from clickhouse_connect import dbapi

    connection = dbapi.connect(dsn=arguments["dsn"], database="default")
    connection.command(f"CREATE DATABASE IF NOT EXISTS `{arguments['database']}`")
    connection.close()


def _compiler(base: Any) -> Any:
    """The driver's compiler with what it lacks: `/` of ClickHouse makes floating-point numbers of whole ones."""

    class Compiler(base):  # type: ignore[misc]  # the driver is not installed everywhere
        def visit_floordiv_binary(self, binary: Any, _operator: Any, **kw: Any) -> str:
            return f"intDiv({self.process(binary.left, **kw)}, {self.process(binary.right, **kw)})"

        def visit_mod_binary(self, binary: Any, _operator: Any, **kw: Any) -> str:
            return f"modulo({self.process(binary.left, **kw)}, {self.process(binary.right, **kw)})"

        def visit_bitwise_and_op_binary(self, binary: Any, _operator: Any, **kw: Any) -> str:
            return f"bitAnd({self.process(binary.left, **kw)}, {self.process(binary.right, **kw)})"

    return Compiler


def moment_text(moment: datetime) -> str:
    """A moment as a query has it: text, because the driver cuts fractions of a second off.

    Before and after what a `DateTime64(6)` holds, it is the first or the last moment: no row is beyond.
    """
    return f"{min(max(moment, _FIRST), _LAST).astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def step_of(moment: Any, step: timedelta) -> str:
    """The number of the step that holds a moment, as SQL."""
    number, length = f"toUnixTimestamp64Micro({moment})", int(step.total_seconds() * 1_000_000)
    return f"intDiv({number} - positiveModulo({number}, {length}), {length})"


def client_of(connection: Connection) -> Any:
    """The driver's own client, which takes a batch of rows in one request."""
    return connection.connection.dbapi_connection.client  # type: ignore[union-attr]  # it is checked out


def insert_block(connection: Connection, table: str, block: tuple[list[str], bytes]) -> None:
    """Add rows to a table, in one request.

    Args:
        connection: one that writes.
        table: its name.
        block: the columns that the rows have, and the rows in the format Native.
    """
    columns, body = block
    client_of(connection).raw_insert(table, columns, body, fmt="Native")
