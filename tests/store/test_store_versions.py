"""Old tables, new tables and other people's tables in one database: upgrades, downgrades and code in between."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from _postgres import Server
from _released import CALLS, COST_USD, RELEASED, load
from _stored import NOON, llm_call, new_database, sqlite_url, store_at, task
from sqlalchemy import create_engine, inspect, text

from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, IdempotencyKey, ReservationLine
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreVersionError
from taskpilot_obs.records import Source
from taskpilot_obs.stats import Stats, get_stats
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, downgrade, upgrade
from taskpilot_obs.store.budget_ledger import StoreLedger
from taskpilot_obs.store.differences import differences
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.versions import REVISIONS
from taskpilot_obs.store.writer import Writer

ALL = (NOON - timedelta(days=9), NOON + timedelta(days=9))


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Server:
    """Where released stores are loaded to."""
    if request.param == "sqlite":
        return tmp_path
    server: Server = request.getfixturevalue("server")
    return server


def told(store: Store) -> Stats:
    return get_stats(ALL, store=store)


@pytest.mark.promise("old-stores")
@pytest.mark.parametrize("version", RELEASED)
def test_a_released_store_is_upgraded_with_all_that_it_holds(home: Path | Server, version: str) -> None:
    """Rows, summaries and the budgets' money are what they were, and the tables are those of this code."""
    url = load(version, home)
    with store_at(url) as store:
        assert store.version() == REVISIONS[-1]
        assert differences(store) == []
        before = told(store)
        assert (before.requests, before.cost_usd, before.failures) == (CALLS, Decimal(COST_USD), 1)
        aggregate_summaries("daily", None, store=store)
        after = told(store)
        assert (after.requests, after.cost_usd, after.by_model) == (before.requests, before.cost_usd, before.by_model)
        team = Budget("team", limit_usd=1)
        window = team.window(NOON)
        claim = ReservationLine(team, BudgetAccount("team", "", window.start), window, 250_000_000_000)
        StoreLedger(store).settle([Charge(claim, "a")], NOON, IdempotencyKey("one", 1))
        (line,) = StoreLedger(store).read([team], [window.start]).values()
        assert (line.spent, line.reserved) == (claim.amount, 0)


def test_a_question_never_changes_a_file(tmp_path: Path) -> None:
    """A file of the version before is read as it is; one that is too old is refused, and stays as it is."""
    url = load("0002", tmp_path)
    before = (tmp_path / "telemetry.db").read_bytes()
    assert get_stats(ALL, store=url).requests == CALLS
    assert (tmp_path / "telemetry.db").read_bytes() == before
    (tmp_path / "old").mkdir()
    with pytest.raises(StoreVersionError, match="db upgrade"):
        get_stats(ALL, store=load("0001", tmp_path / "old"))


@pytest.mark.promise("old-stores")
def test_this_code_works_on_the_tables_of_the_version_before(home: Path | Server) -> None:
    """It writes what these tables have, answers, and books; only summing up waits for the upgrade."""
    url = load("0002", home)
    store = Store(url)
    Writer(store).write(rows_of([llm_call(cost=Decimal(1)), task()], Source("billing", "production")))
    found = told(store)
    assert (found.requests, found.cost_usd) == (CALLS + 1, Decimal(COST_USD) + 1)
    assert get_stats(ALL, store=store, tenant="umbrella").requests == 15
    with pytest.raises(StoreVersionError, match="db upgrade"):
        get_stats(ALL, store=store, service="billing")
    with pytest.raises(StoreVersionError, match="db upgrade"):
        aggregate_summaries(store=store)
    store.close()


def test_newer_tables_that_allow_this_code_are_used(store: Store, url: str) -> None:
    """A store that a newer version wrote, and whose `min_code` this code fulfils, is written and read."""
    columns = "taskpilot_obs_version (version_num, min_code)"
    with store.writing() as connection:
        if not store.is_clickhouse:  # where the later row replaces the one that is there
            connection.execute(text("DELETE FROM taskpilot_obs_version"))
        connection.execute(text(f"INSERT INTO {columns} VALUES ('9999', '0004')"))  # noqa: S608  a constant
    exporter = StoreExporter(url)
    exporter.export([llm_call()])
    exporter.shutdown(5.0)
    assert get_stats(ALL, store=url).requests == 1
    with store_at(url) as newer:
        assert newer.version() == "9999"


def test_tables_without_the_index_by_session_are_used_and_get_it(store: Store) -> None:
    """Version 0004 differs by that alone: it is written and read, and `db upgrade` adds the index."""
    downgrade(store, "0004")
    assert differences(store) == ["llm_call_telemetry: the index ix_llm_call_telemetry_session_time is missing"]
    Writer(store).write(rows_of([llm_call(session="s-1"), llm_call(session="s-2")], Source("billing")))
    assert get_stats(ALL, store=store, session="s-1", service="billing").requests == 1
    upgrade(store)
    assert differences(store) == []
    aggregate_summaries("daily", None, store=store)
    assert get_stats(ALL, store=store, session_id="s-1").requests == 1


def test_going_back_keeps_rows_and_sums(store: Store) -> None:
    """Downgraded and upgraded again, every answer is what it was; the summaries of two services become one."""
    writer = Writer(store)
    for number, service in enumerate(("billing", "search", "search")):
        calls = [llm_call(NOON - timedelta(hours=n), invocation_id=f"{number}-{n}", ttft_s=0.2) for n in range(30)]
        writer.write(rows_of(calls, Source(service)))
    aggregate_summaries("daily", None, store=store)
    before = told(store)
    with store.writing() as connection:  # the summaries alone are left to tell
        connection.execute(text("DELETE FROM llm_call_telemetry"))
    assert told(store).cost_usd == before.cost_usd
    downgrade(store, "0002")
    assert store.version() == "0002"
    went_back = told(store)
    assert (went_back.requests, went_back.cost_usd) == (before.requests, before.cost_usd)
    assert went_back.latency.p95_ms == before.latency.p95_ms
    upgrade(store)
    assert differences(store) == []
    assert told(store).model_copy(update={"latency": before.latency}) == before
    with pytest.raises(ConfigurationError, match="0001"):
        downgrade(store, "0000")


def test_another_applications_versions_are_left_alone(home: Path | Server) -> None:
    """An `alembic_version` of another application is neither read as ours nor changed."""
    url = sqlite_url(home) if isinstance(home, Path) else new_database(home)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    with store_at(url) as store:
        assert store.version() == REVISIONS[-1]
        downgrade(store, "0002")
        upgrade(store)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0001"]
    engine.dispose()


def test_a_schema_of_its_own(server: Server) -> None:
    """`?schema=` keeps every table in that schema, beside another store in the same database."""
    url = new_database(server)
    with store_at(url) as plain, store_at(f"{url}?schema=telemetry") as own:
        Writer(own).write(rows_of([llm_call(), llm_call(), task()]))
        aggregate_summaries("daily", None, store=own)
        assert (told(own).requests, told(plain).requests) == (2, 0)
        assert differences(own) == []
        with own.reading() as connection:
            tables = inspect(connection)
            assert set(tables.get_table_names(schema="telemetry")) == set(tables.get_table_names(schema="public"))
    with pytest.raises(ConfigurationError, match="schema"):
        Store(f'{url}?schema="; DROP')


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_lacks_names_is_refused(server: Server, encoding: str) -> None:
    """`db upgrade` makes no tables in a database whose encoding cannot hold every name, and says what to do."""
    url = new_database(server, encoding)
    store = Store(url)
    with pytest.raises(StoreError, match="UTF8"):
        upgrade(store)
    assert store.version() is None
    store.close()


def test_the_check_sees_what_differs(store: Store) -> None:
    """Types, NULLs, keys and indexes are compared, and not only names."""
    changes = {
        "DROP INDEX ix_agent_runs_time": "agent_runs: the index ix_agent_runs_time is missing",
        "DROP INDEX ux_llm_series": "llm_series: the index ux_llm_series is missing",
        "CREATE INDEX ux_llm_series ON llm_series (provider)": "llm_series: the index ux_llm_series is (provider)",
    }
    if store.is_clickhouse:
        changes = {
            "ALTER TABLE agent_runs DROP INDEX ix_user_id": "agent_runs: the index ix_user_id is missing",
            "ALTER TABLE agent_runs MODIFY COLUMN duration_ms Float32": "the column duration_ms is Float32",
            "ALTER TABLE agent_runs MODIFY COLUMN name Nullable(String)": "the column name is Nullable(String)",
            "ALTER TABLE store_state ADD COLUMN extra String, MODIFY ORDER BY (key, extra)": "sorted by (key, extra)",
        }
    elif not store.is_sqlite:
        changes["ALTER TABLE agent_runs ALTER COLUMN duration_ms TYPE numeric"] = "the column duration_ms is"
        changes["ALTER TABLE agent_runs ALTER COLUMN name DROP NOT NULL"] = "the column name allows NULL"
        changes["ALTER TABLE budget_writers DROP CONSTRAINT budget_writers_pkey"] = "the primary key is ()"
    for change, said in changes.items():
        with store.writing() as connection:
            connection.execute(text(change))
        assert any(said in difference for difference in differences(store)), (change, differences(store))


def test_an_upgrade_builds_its_indexes_beside_writers(server: Server) -> None:
    """While the indexes wait for a transaction that is open, another writer goes on; a broken index is built again."""
    url = load("0002", server)
    engine = create_engine(url, connect_args={"options": "-c lock_timeout=5s"})
    columns = "(created_at, correct, revision, feedback_id, request_id)"
    insert = text(f"INSERT INTO user_feedback {columns} VALUES (now(), true, false, :id, 'r')")  # noqa: S608  ours
    building = "wait_event_type = 'Lock' AND query LIKE '%CONCURRENTLY%'"
    waiting = text(f"SELECT count(*) FROM pg_stat_activity WHERE {building}")  # noqa: S608  ours
    broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_agent_runs_user_time'::regclass"
    store = Store(url)
    with engine.connect() as open_writer, engine.connect() as other, ThreadPoolExecutor(1) as threads:
        open_writer.execute(insert, {"id": "open"})
        upgraded = threads.submit(upgrade, store)
        deadline = time.monotonic() + 60.0
        while not other.execute(waiting).scalar_one() and time.monotonic() < deadline:
            other.rollback()
            time.sleep(0.02)
        other.execute(insert, {"id": "other"})
        other.commit()
        assert not upgraded.done()
        open_writer.commit()
        upgraded.result(60.0)
    assert differences(store) == []
    with engine.begin() as connection:  # as a build that was interrupted leaves it
        connection.exec_driver_sql(broken)
    (found,) = differences(store)
    assert found == "agent_runs: the index ix_agent_runs_user_time is not complete: its build was interrupted"
    upgrade(store)
    assert differences(store) == []
    engine.dispose()
    store.close()


def test_budgets_are_booked_on_the_tables_of_the_version_before(home: Path | Server) -> None:
    """In a rolling upgrade, code that came before `db upgrade` books, reserves, refuses and reads."""
    for version in RELEASED[1:]:
        store = Store(load(version, home))
        ledger, team = StoreLedger(store), Budget("rolling", limit_usd=1, action="enforce")
        window = team.window(NOON)
        line = ReservationLine(team, BudgetAccount("rolling", "", window.start), window, 600_000_000_000)
        assert ledger.reserve("a", [line], NOON, NOON + timedelta(minutes=1)) is None
        assert ledger.reserve("b", [line], NOON, NOON + timedelta(minutes=1)) is not None
        ledger.settle([Charge(line, "a", is_assumed=True)], NOON, IdempotencyKey("one", 1))
        (balance,) = ledger.read([team], [window.start]).values()
        assert (balance.spent, balance.reserved) == (line.amount, 0)
        assert ledger.other_limits([team], NOON) == {}
        store.close()
