"""Reading a store's URL: what is allowed, what the driver gets, and what may be printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from sqlalchemy import URL

EMBEDDED: Final = "clickhouse+chdb"
"""Opens the engine inside of this process: for tests, and for looking at a copy. It needs the package chdb."""
_SCHEMES: Final = {
    "sqlite": ("sqlite", "sqlite+pysqlite"),
    "postgresql": ("postgresql", "postgres", "postgresql+psycopg"),
    "clickhouse": ("clickhouse", EMBEDDED),
}
_DRIVERS: Final = {scheme: database for database, schemes in _SCHEMES.items() for scheme in schemes}
_ALLOWED: Final = (
    "allowed are sqlite:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE "
    "and clickhouse://USER:PASSWORD@HOST:8443/DATABASE?secure=1"
)
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SWITCH: Final = {"1": True, "on": True, "true": True, "0": False, "off": False, "false": False}
_OURS: Final = frozenset({"schema", "prepared_statements"})

_CLICKHOUSE_OPTIONS: Final[dict[str, type]] = {
    "secure": bool,
    "verify": bool,
    "async_insert": bool,
    "ca_cert": str,
    "client_cert": str,
    "client_cert_key": str,
    "server_host_name": str,
    "connect_timeout": int,
    "send_receive_timeout": int,
}
"""Options of a ClickHouse URL, and what each takes."""

_PINNED: Final = frozenset({"client_encoding", "options"})
"""Options of the driver that the store sets by itself: another value would change what is stored or read."""


class StoreUrl(NamedTuple):
    """A store's URL, taken apart."""

    url: URL
    """Without options and without secrets beside the password."""
    name: str
    """Scheme, host, port and database: all of the URL that messages and logs may show."""
    options: dict[str, str]
    """For the driver, secrets included."""
    schema: str | None = None
    """The PostgreSQL schema that holds the tables; None: the first one of the search path."""
    prepared_statements: bool | None = None
    """Whether the driver may prepare statements; None: found out when a connection is made."""
    read_only: bool = False
    key: str = ""
    """Tells stores apart, for folders named after a digest of it; not to be printed."""

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is a file of SQLite."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def is_clickhouse(self) -> bool:
        """Whether the store is in ClickHouse, which has no transactions."""
        return self.url.get_backend_name() == "clickhouse"


def parsed(url: str) -> StoreUrl:
    """Take a store's URL apart.

    Raises:
        ConfigurationError: the URL cannot be read, names another database or an option that has no effect. The message
            never repeats the URL, which may hold a password.
        MissingExtraError: the driver of the database is not installed.
    """
    try:
        url.encode()  # fails on a lone surrogate, by which Python shows an undecodable byte of the environment
        found = make_url(url)
        backend = _DRIVERS.get(found.drivername)
    except (ArgumentError, AttributeError, ValueError, TypeError):
        raise ConfigurationError(f"store: given something that is not a URL; {_ALLOWED}") from None
    if backend is None:
        raise ConfigurationError(f"store: given {found.drivername}://…; {_ALLOWED}")
    query = {key: value if isinstance(value, str) else value[-1] for key, value in found.query.items()}
    if backend == "postgresql":
        found = found.set(drivername="postgresql+psycopg")
    bare = found.set(query={})
    target = {"sqlite": _sqlite, "postgresql": _postgresql, "clickhouse": _clickhouse}[backend](bare, query)
    return target._replace(key=found.render_as_string(hide_password=True))


def _sqlite(url: URL, query: dict[str, str]) -> StoreUrl:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError("store: a SQLite store needs the path of a file, as in sqlite:///telemetry.db")
    mode = query.pop("mode", "rwc")
    if mode not in {"ro", "rw", "rwc"}:
        raise ConfigurationError("store: the option mode= of a SQLite URL takes ro, rw or rwc")
    if query:
        raise ConfigurationError(f"store: a SQLite URL takes the option mode=, and not {', '.join(sorted(query))}")
    return StoreUrl(url, f"sqlite:///{url.database}", {}, read_only=mode == "ro")


def _postgresql(url: URL, query: dict[str, str]) -> StoreUrl:
    if url.host is not None and "@" in url.host:
        raise ConfigurationError(
            "store: the user or the password of the URL holds an @; write it as %40, and a / or : as %2F or %3A"
        )
    schema, prepared = query.pop("schema", None), query.pop("prepared_statements", None)
    _check_options(query)
    if schema is not None and not _SCHEMA.fullmatch(schema):
        raise ConfigurationError("store: schema= takes the name of a schema in lower case, as in schema=telemetry")
    if prepared is not None and prepared.lower() not in _SWITCH:
        raise ConfigurationError("store: prepared_statements= takes on or off")
    return StoreUrl(
        url,
        _shown(url, query),
        query,
        schema,
        None if prepared is None else _SWITCH[prepared.lower()],
    )


def _clickhouse(url: URL, query: dict[str, str]) -> StoreUrl:
    if url.drivername == EMBEDDED:
        database = query.pop("database", "default")
        if not url.database or query or not _SCHEMA.fullmatch(database):
            raise ConfigurationError(
                "store: the embedded ClickHouse needs a folder and takes the option database=, as in "
                f"{EMBEDDED}:////var/lib/telemetry?database=telemetry"
            )
        return StoreUrl(url, f"{EMBEDDED}:///{url.database}?database={database}", {}, database)
    if not url.host or "@" in url.host:
        raise ConfigurationError(
            "store: a ClickHouse URL needs a host, as in clickhouse://host:8443/db?secure=1; "
            "write an @ of the user or the password as %40"
        )
    for name, value in query.items():
        clickhouse_option(name, value)
    port = f":{url.port}" if url.port else ""
    return StoreUrl(url, f"clickhouse://{url.host}{port}/{url.database or 'default'}", query)


def clickhouse_option(name: str, value: str) -> str | int | bool:
    """An option of a ClickHouse URL as the driver takes it.

    Args:
        name: of the option.
        value: as it stands in the URL.

    Raises:
        ConfigurationError: there is no such option, or it does not take this value.
    """
    kind = _CLICKHOUSE_OPTIONS.get(name)
    if kind is None:
        allowed = ", ".join(sorted(_CLICKHOUSE_OPTIONS))
        raise ConfigurationError(f"store: a ClickHouse URL has no option {name}; allowed are {allowed}")
    if kind is bool:
        if value.lower() not in _SWITCH:
            raise ConfigurationError(f"store: the option {name}= of a ClickHouse URL takes 1 or 0")
        return _SWITCH[value.lower()]
    if kind is int:
        if not (value.isascii() and value.isdigit() and int(value)):
            raise ConfigurationError(f"store: the option {name}= of a ClickHouse URL takes a number of seconds")
        return int(value)
    return value


def _check_options(query: dict[str, str]) -> None:
    """Refuse an option that the driver does not know: it would be an error at the first connection."""
    pinned = sorted(_PINNED & query.keys())
    if pinned:
        raise ConfigurationError(f"store: the store sets {', '.join(pinned)} by itself; leave it out of the URL")
    unknown = sorted(query.keys() - _known_options())
    if unknown:
        raise ConfigurationError(
            f"store: PostgreSQL has no option {', '.join(unknown)}; allowed are those of libpq (sslmode, host, …) "
            f"and {', '.join(sorted(_OURS))}"
        )


def _known_options() -> frozenset[str]:
    try:
        from psycopg import pq
    except ImportError as error:
        raise MissingExtraError("a telemetry store on PostgreSQL", "postgres") from error
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def _shown(url: URL, query: dict[str, str]) -> str:
    host = url.host or query.get("host") or ""
    port = url.port or query.get("port")
    database = url.database or query.get("dbname") or ""
    return f"postgresql+psycopg://{host}{f':{port}' if port else ''}/{database}"
