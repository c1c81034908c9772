"""Opening, creating, upgrading and refusing stores."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from _postgres import Server
from _stored import NOON, llm_call, new_database, run_processes, sqlite_url, store_at
from sqlalchemy import text
from sqlalchemy.dialects import sqlite as sqlite_dialect

from taskpilot_obs.exceptions import (
    ConfigurationError,
    MissingExtraError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
)
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, on_sqlite, prune, upgrade, versions
from taskpilot_obs.store.differences import differences
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.tables import UtcTime
from taskpilot_obs.store.versions import REVISIONS
from taskpilot_obs.store.writer import Writer


def test_the_migrations_draw_the_tables_that_the_code_expects(store: Store) -> None:
    """After all migrations nothing differs from the tables that the queries use, on either engine."""
    assert differences(store) == []
    assert store.version() == REVISIONS[-1]


def test_the_known_versions_are_those_of_the_migrations() -> None:
    """The list of versions in the code is the chain that Alembic walks."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(versions.__file__).with_name("migrations")))
    walked = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(walked)) == REVISIONS


def test_a_missing_column_is_seen(store: Store) -> None:
    """The comparison tells what a database lacks."""
    with store.writing() as connection:
        connection.execute(text("ALTER TABLE user_feedback DROP COLUMN variant"))
    assert any("variant" in difference for difference in differences(store))


def test_upgrading_twice_changes_nothing(store: Store) -> None:
    """A store that is current stays as it is."""
    Writer(store).write(rows_of([llm_call()]))
    upgrade(store)
    with store.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 1


def test_a_store_of_a_newer_version_is_refused_with_what_to_do(store: Store, url: str) -> None:
    """Code that is too old neither reads nor writes, and says which way out there is."""
    change = "ALTER TABLE taskpilot_obs_version UPDATE" if store.is_clickhouse else "UPDATE taskpilot_obs_version SET"
    with store.writing() as connection:
        connection.execute(text(f"{change} version_num = '9999', min_code = '9999' WHERE true"))
    acts: tuple[Callable[[], object], ...] = (
        store.version,
        store.require_current,
        lambda: StoreExporter(url),
        lambda: upgrade(store),
        lambda: get_stats("1h", store=url),
        lambda: aggregate_summaries(store=url),
        lambda: prune(30, store=url),
    )
    for refused in acts:
        with pytest.raises(StoreVersionError, match="upgrade taskpilot-obs"):
            refused()


@pytest.mark.promise("owner-only")
def test_a_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """The file and its journals carry no rights for others, whatever the umask."""
    with store_at(sqlite_url(tmp_path)) as store:
        Writer(store).write(rows_of([llm_call()]))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) >= {"telemetry.db", "telemetry.db-wal"}
    assert set(modes.values()) == {0o600}


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    """SQLite works with a write-ahead log: a reader sees what was committed while another transaction writes."""
    with store_at(sqlite_url(tmp_path)) as store:
        with store.writing() as writing:
            writing.execute(text("DELETE FROM llm_call_telemetry"))
            with store.reading() as reading:
                assert reading.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 0
        with closing(sqlite3.connect(tmp_path / "telemetry.db")) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_reading_sees_one_snapshot(store: Store) -> None:
    """What is written after the first query of a reader is not seen by its second; it is on ClickHouse."""
    count = text("SELECT count(*) FROM llm_call_telemetry")
    with store.reading() as connection:
        before = connection.execute(count).scalar_one()
        Writer(store).write(rows_of([llm_call()]))
        assert connection.execute(count).scalar_one() == before + store.is_clickhouse
    with store.reading() as connection:
        assert connection.execute(count).scalar_one() == before + 1


def test_a_question_does_not_make_a_store(tmp_path: Path) -> None:
    """Reading a file that is not there is an error, and leaves none behind."""
    with pytest.raises(StoreError, match="there is no telemetry store"):
        Store(sqlite_url(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_postgresql_without_tables_says_what_to_do(server: Server) -> None:
    """Tables of a shared server are made by a person, once."""
    url = new_database(server)
    for asked in (lambda: StoreExporter(url), lambda: get_stats("1h", store=url)):
        with pytest.raises(StoreVersionError, match="taskpilot-obs db upgrade"):
            asked()


@pytest.mark.parametrize(
    "url",
    ["mysql://root@localhost/x", "telemetry.db", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", ""],
)
def test_a_url_of_something_else_is_refused(url: str) -> None:
    """The message names what is allowed."""
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        Store(url, create=True)


def test_a_password_is_never_shown(server: Server) -> None:
    """Neither the store's text nor an error holds the password."""
    store = Store(server.url().replace("tester@", "tester:s3cret@").replace(str(server.port), "1"))
    assert "s3cret" not in str(store)
    with pytest.raises(StoreUnavailableError) as raised:
        store.version()
    assert "s3cret" not in str(raised.value)
    store.close()


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    """The error names the file and the way out; the file stays as it is."""
    (tmp_path / "telemetry.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="not a SQLite database: move it away"):
        Store(sqlite_url(tmp_path), create=True)
    assert (tmp_path / "telemetry.db").read_bytes().startswith(b"not a database")


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    """Pages that were overwritten are an error in words, for writers and readers."""
    with store_at(sqlite_url(tmp_path)) as store:
        Writer(store).write(rows_of([llm_call() for _ in range(2_000)]))
    path = tmp_path / "telemetry.db"
    content = bytearray(path.read_bytes())
    content[4096 * 100 :] = b"\xff" * (len(content) - 4096 * 100)
    path.write_bytes(content)
    with store_at(sqlite_url(tmp_path)) as store:
        with pytest.raises(StoreError, match="damaged: restore a backup"):
            Writer(store).write(rows_of([llm_call(NOON - timedelta(days=1), provider=str(n)) for n in range(500)]))
        with pytest.raises(StoreError, match="damaged"), store.reading() as connection:
            connection.execute(text("SELECT count(DISTINCT request_id || telemetry_id) FROM llm_call_telemetry")).one()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A path that cannot be made is refused at construction."""
    with pytest.raises(StoreError, match="cannot be created"):
        Store(f"sqlite:///{tmp_path}/missing/telemetry.db", create=True)


def test_a_file_in_use_is_turned_to_its_log_when_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process reads a file that has no write-ahead log yet, opening it waits, and gives up in the end."""
    other = sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE theirs (x)")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM theirs").fetchall()
    monkeypatch.setattr(on_sqlite, "BUSY_TIMEOUT_S", 0.05)
    with pytest.raises(StoreUnavailableError, match="held its lock"):
        Store(sqlite_url(tmp_path), create=True)
    monkeypatch.setattr(on_sqlite, "BUSY_TIMEOUT_S", 30.0)
    monkeypatch.setattr(on_sqlite, "_SETTINGS", {"busy_timeout": 10})
    threading.Timer(0.2, other.rollback).start()
    with store_at(sqlite_url(tmp_path)) as store:
        assert store.version() == REVISIONS[-1]
    other.close()


def test_a_driver_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg a PostgreSQL URL says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match="postgres"):
        Store("postgresql://tester@127.0.0.1/x")


@pytest.mark.parametrize(
    "statement", ["SELECT * FROM nowhere", "SELECT :missing", "INSERT INTO store_state (key) VALUES (NULL)"]
)
def test_a_statement_that_is_wrong_is_an_error_without_its_values(store: Store, statement: str) -> None:
    """Whatever a database refuses is an error of the store, and tells no row."""
    with pytest.raises(StoreError), store.writing() as connection:
        connection.execute(text(statement))


def test_what_is_too_large_for_an_index_is_refused_and_not_tried_for_ever(server: Server) -> None:
    """PostgreSQL calls it an operational error, as a server that is away: waiting does not help."""
    store = Store(new_database(server))
    upgrade(store)
    name = "".join(map(chr, range(0x4E00, 0x6E00)))
    insert = text("INSERT INTO llm_series (provider, model_name, agent) VALUES ('', '', :name)")
    with pytest.raises(StoreError, match="refused") as raised, store.writing() as connection:
        connection.execute(insert, {"name": name})
    assert not isinstance(raised.value, StoreUnavailableError)
    store.close()


def test_an_unknown_time_is_none() -> None:
    """NULL comes back as None."""
    assert UtcTime().process_result_value(None, sqlite_dialect.dialect()) is None
    assert UtcTime().process_bind_param(None, sqlite_dialect.dialect()) is None


def _open(url: str, begin: float) -> None:
    time.sleep(max(0.0, begin - time.time()))
    with store_at(url) as store:
        Writer(store).write(rows_of([llm_call(invocation_id=str(os.getpid()))]))


def test_several_processes_make_one_store(url: str) -> None:
    """Eight processes that begin at the same moment find the same tables, and write to them."""
    begin = time.time() + 2.0
    assert run_processes(_open, *((url, begin) for _ in range(8))) == [0] * 8
    with store_at(url) as store, store.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 8
        assert connection.execute(text("SELECT count(*) FROM llm_series")).scalar_one() == 1
