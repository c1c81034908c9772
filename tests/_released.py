"""Stores as released versions of the library left them, loaded into a new database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from _postgres import Server
from _stored import new_database, sqlite_url
from sqlalchemy import create_engine, make_url

FOLDER = Path(__file__).parent / "store" / "released"
RELEASED = ("0001", "0002")
CALLS = 31
COST_USD = "7.50"
"""What the calls in each of them cost; one more has an unknown cost."""


def load(version: str, home: Path | Server) -> str:
    """Make a store of this version; its URL.

    Args:
        version: of the tables.
        home: a folder for a file of SQLite, or a server for a database of its own.
    """
    if isinstance(home, Path):
        with closing(sqlite3.connect(home / "telemetry.db")) as connection:
            connection.executescript((FOLDER / f"{version}_sqlite.sql").read_text())
        return sqlite_url(home)
    url = new_database(home)
    engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql((FOLDER / f"{version}_postgresql.sql").read_text().replace("%", "%%"))
    engine.dispose()
    return url
