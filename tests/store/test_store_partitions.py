"""Monthly partitions of PostgreSQL: made while a store is used, ahead of time, dropped by age, unseen in answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import typer
from _postgres import Server, lock_waits
from _stored import NOON, llm_call, new_database, sqlite_url, store_at, task
from sqlalchemy import Table, delete, select, text
from typer.testing import CliRunner

from taskpilot_obs.cli import db
from taskpilot_obs.doctor.store import check_store
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError
from taskpilot_obs.records import Operation, Source
from taskpilot_obs.stats import Stats, get_agent_stats, get_stats
from taskpilot_obs.store import Store, aggregate_summaries, downgrade, erase, partitioning, prune, short_locks, upgrade
from taskpilot_obs.store.differences import differences
from taskpilot_obs.store.months import BIG_TABLES, TablePartitions, floor_month, layout_of, next_month
from taskpilot_obs.store.partitioning import abandon, partition
from taskpilot_obs.store.picked import picked
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.tables import AGENT_RUNS, LLM_CALLS
from taskpilot_obs.store.writer import Writer

DAY = timedelta(days=1)
ALL = (NOON - 900 * DAY, NOON + 900 * DAY)


@pytest.fixture
def store(server: Server) -> Iterator[Store]:
    """A PostgreSQL store without partitions."""
    with store_at(new_database(server)) as opened:
        yield opened


def fill(store: Store, days: int = 100, user: str = "ann") -> None:
    """A call and a run on each of so many days."""
    calls = [llm_call(NOON - n * DAY, user=user, cost=Decimal(1)) for n in range(days)]
    runs = [task(NOON - n * DAY, operation=Operation.AGENT) for n in range(days)]
    Writer(store).write(rows_of([*calls, *runs], Source("billing")))


def told(store: Store) -> tuple[Stats, object]:
    return get_stats(ALL, store=store), get_agent_stats(ALL, store=store)


def layout(store: Store, table: Table = LLM_CALLS) -> TablePartitions:
    with store.reading() as connection:
        found = layout_of(connection, table)
    assert found is not None
    return found


def amount(store: Store, table: str) -> int:
    with store.reading() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608  our names


def run_sql(store: Store, *statements: str) -> None:
    with store.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_store_with_data_gets_partitions_and_answers_as_before(store: Store) -> None:
    """Each month of calls and runs has a partition, the tables are as expected, and no answer changes."""
    fill(store)
    aggregate_summaries("daily", None, store=store)
    before = told(store)
    made = partition(store=store)
    assert set(made) == {"llm_call_telemetry", "agent_runs"}
    assert differences(store) == []
    assert told(store) == before
    assert all(layout(store, table).covers(floor_month(NOON - n * DAY)) for table in BIG_TABLES for n in range(100))
    assert amount(store, str(layout(store).rest)) == 0
    assert amount(store, "v_llm_calls") == 100
    assert partition(store=store) == made


def test_the_months_to_come_are_made_ahead(store: Store) -> None:
    """Summing up makes the partitions of this month and the next three."""
    partition(store=store)
    names = [piece.name for piece in layout(store).pieces]
    run_sql(store, *(f"DROP TABLE {name}" for name in names))
    aggregate_summaries(store=store)
    assert [piece.name for piece in layout(store).pieces] == names
    assert len(names) == 4
    never_counted = "pg_class WHERE relname LIKE 'llm_call_telemetry_20%' AND relkind = 'r' AND reltuples < 0"
    assert amount(store, never_counted) == 0
    assert differences(store) == []


def test_a_record_is_kept_once_in_its_month(store: Store) -> None:
    """A spool that is replayed adds nothing, at the same time or at another one of the month, before or after."""
    record = llm_call(NOON, invocation_id="one")
    run = task(NOON, invocation_id="one")
    Writer(store).write(rows_of([record, run]))
    partition(store=store)
    for _ in range(2):
        Writer(store).write(rows_of([record, run, llm_call(NOON - DAY, invocation_id="one")]))
    assert [amount(store, table.name) for table in BIG_TABLES] == [1, 1]


def test_records_of_any_time_are_kept(store: Store) -> None:
    """A late record gets the partition of its month; a clock of 1970, or of the year 2100, makes none."""
    partition(store=store)
    present = datetime.now(UTC)
    late = present - 900 * DAY
    odd = (datetime(1970, 1, 2, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    Writer(store).write(rows_of([llm_call(at) for at in (late, present, *odd)]))
    assert layout(store).covers(floor_month(late))
    assert not any(map(layout(store).covers, map(floor_month, odd)))
    assert amount(store, str(layout(store).rest)) == 2
    assert get_stats((odd[0] - DAY, odd[1] + DAY), store=store).requests == 4


def test_rows_of_the_default_partition_move_to_their_month(store: Store) -> None:
    """What was written while its month had no partition is in it after `aggregate`."""
    partition(store=store)
    Writer(store).write(rows_of([llm_call(NOON), task(NOON)]))
    piece = next(piece for piece in layout(store).pieces if piece.start == floor_month(NOON))
    rest = layout(store).rest
    run_sql(store, f"ALTER TABLE llm_call_telemetry DETACH PARTITION {piece.name}")
    run_sql(store, f"ALTER TABLE {piece.name} RENAME TO apart")
    names = "series_id, created_at, streaming, latency_bin, latency_ms, telemetry_id, request_id, status"
    run_sql(store, f"INSERT INTO llm_call_telemetry ({names}) SELECT {names} FROM apart")  # noqa: S608  our names
    assert amount(store, str(rest)) == 1
    aggregate_summaries(store=store)
    assert (amount(store, str(rest)), amount(store, piece.name)) == (0, 1)


def test_retention_drops_months_and_deletes_the_rest(store: Store) -> None:
    """Partitions that are over go as a whole, the month with the edge by rows; summaries answer as before."""
    with store_at(str(store.url.render_as_string(hide_password=False))) as other:
        fill(other, 100)
    partition(store=store)
    sums = get_stats(ALL, store=store)
    deleted = prune({"llm_call_telemetry": 40, "agent_runs": 40}, store=store, now=NOON)
    assert deleted == {"llm_call_telemetry": 59, "agent_runs": 59}  # whole hours: the row at the edge stays
    assert not layout(store).covers(floor_month(NOON - 80 * DAY))
    assert layout(store).covers(floor_month(NOON - 41 * DAY))
    after = get_stats(ALL, store=store)
    assert (after.requests, after.cost_usd) == (sums.requests, sums.cost_usd)
    assert amount(store, "llm_call_telemetry") == 41
    assert differences(store) == []


def test_a_role_that_does_not_own_the_tables_deletes_by_rows(server: Server, store: Store) -> None:
    """It writes, sums up and deletes; the partitions stay, and records without one are in the default partition."""
    fill(store, 70)
    run_sql(
        store,
        "DROP ROLE IF EXISTS scribe",
        "CREATE ROLE scribe LOGIN",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO scribe",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO scribe",
    )
    with closing(Store(store.url.set(username="scribe").render_as_string())) as scribe:
        with pytest.raises(StoreUnavailableError, match="right"):
            partition(store=scribe)
        partition(store=store)
        pieces = layout(store).pieces
        fill(scribe, 80)
        Writer(scribe).write(rows_of([llm_call(NOON + 2_000 * DAY)]))
        assert prune({"llm_call_telemetry": 40}, store=scribe, now=NOON)["llm_call_telemetry"] == 29 + 39
        assert layout(store).pieces == pieces
        assert amount(store, str(layout(store).rest)) == 1


def test_erasing_takes_the_subject_out_of_every_partition(store: Store) -> None:
    """Nothing of another user goes, also where it is stored at the same place of another partition."""
    fill(store, 100, "ann")
    fill(store, 100, "bob")
    partition(store=store)
    aggregate_summaries("daily", None, store=store)
    erased = erase(user="ann", store=store).erased
    assert erased["llm_call_telemetry"] == 100
    assert get_stats(ALL, store=store, user_id="ann").requests == 0
    assert get_stats(ALL, store=store).requests == amount(store, "llm_call_telemetry") == 100


def test_code_that_deletes_by_place_is_refused(store: Store) -> None:
    """Version 0.1.0 would delete rows of other partitions; other deletions by hand are left alone."""
    fill(store, 3)
    partition(store=store)
    by_place = "DELETE FROM llm_call_telemetry WHERE ctid IN (SELECT ctid FROM llm_call_telemetry LIMIT 1)"
    with pytest.raises(StoreError):
        run_sql(store, by_place)
    run_sql(store, "DELETE FROM llm_call_telemetry WHERE user_id = 'ann'")
    assert amount(store, "llm_call_telemetry") == 0


def test_going_back_and_forth_between_versions_keeps_partitions(store: Store) -> None:
    """A downgrade takes indexes and columns off every partition, and an upgrade puts them back beside writers."""
    fill(store, 40)
    partition(store=store)
    before = told(store)
    downgrade(store, "0004")
    assert "llm_call_telemetry: the index ix_llm_call_telemetry_session_time is missing" in differences(store)
    upgrade(store)
    assert differences(store) == []
    assert told(store) == before


# --- while it is used ------------------------------------------------------------------------------------------------


class StopError(Exception):
    """The process ends here."""


@contextmanager
def writing(url: str) -> Iterator[list[str]]:
    """A writer of calls in two months, one that erases some, and one that prices; the IDs that should be left."""
    kept: list[str] = []
    done = threading.Event()

    def write() -> None:
        store, number = Store(url), 0
        writer = Writer(store)
        while not done.is_set():
            number += 1
            at = NOON - (number % 40) * DAY
            batch = [llm_call(at, invocation_id=f"new-{number}-{n}", user="cy" if n else "ann") for n in range(4)]
            writer.write(rows_of(batch))
            kept.extend(call.invocation_id for call in batch if call.user == "cy")
            with store.writing() as connection:
                mine = {"first": f"new-{number}-0", "second": f"new-{number}-1"}
                connection.execute(text("UPDATE llm_call_telemetry SET retries = 3 WHERE telemetry_id = :second"), mine)
                connection.execute(text("DELETE FROM llm_call_telemetry WHERE telemetry_id = :first"), mine)
        store.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(write)
        try:
            yield kept
        finally:
            done.set()
            running.result(60)


@contextmanager
def asking(store: Store, expected: int) -> Iterator[list[int]]:
    """A reader of what does not change; every answer that it got."""
    answers: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(get_stats(ALL, store=store, user_id="bob").requests)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask)
        try:
            yield answers
        finally:
            done.set()
            running.result(60)
    assert set(answers) == {expected}


def test_writers_and_readers_go_on_meanwhile(server: Server, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, doubled or brought back, answers are those of before, and no writer waits for a second."""
    monkeypatch.setattr(partitioning, "_FIRST_ROWS", 50)
    monkeypatch.setattr(partitioning, "_MOST_ROWS", 50)
    for _ in range(20):
        fill(store, 100, "bob")
    url = store.url.render_as_string(hide_password=False)
    with lock_waits(server, url) as waits, writing(url) as kept, asking(store, 2_000):
        partition(store=store)
    assert max(waits, default=0.0) < 1_000
    assert layout(store).pieces
    with store.reading() as connection:
        call = LLM_CALLS.c
        rows = connection.execute(select(call.telemetry_id, call.retries).where(call.user_id != "bob")).all()
    assert sorted(name for name, _ in rows) == sorted(kept)
    assert {name for name, retries in rows if retries == 3} == {name for name in kept if name.endswith("-1")}
    assert differences(store) == []


def test_an_interrupted_run_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended after a batch, it left writers and answers alone, and the next one copies only what is left."""
    monkeypatch.setattr(partitioning, "_FIRST_ROWS", 8)
    monkeypatch.setattr(partitioning, "_MOST_ROWS", 8)
    fill(store)
    before = told(store)
    batches: list[int] = []
    copy_some = partitioning._copy_some

    def interrupted(*given: object) -> bool:
        batches.append(1)
        if len(batches) == 6:
            raise StopError
        return copy_some(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(partitioning, "_copy_some", interrupted)
    with pytest.raises(StopError):
        partition(store=store)
    assert told(store) == before
    Writer(store).write(rows_of([llm_call(NOON - 99 * DAY, user="late", cost=Decimal(1))]))
    prune({"agent_runs": 50}, store=store, now=NOON)
    half_way = told(store)
    first, batches[:] = len(batches), [0] * 10
    partition(store=store)
    assert len(batches) - 10 < 2 * 100 // 8 - first + 4
    assert told(store) == half_way
    assert get_stats(ALL, store=store, user_id="late").requests == 1
    with store.reading() as connection:
        left = connection.execute(text("SELECT count(*) FROM store_state WHERE key LIKE 'copied%'")).scalar_one()
        functions = connection.execute(text("SELECT count(*) FROM pg_proc WHERE proname LIKE '%mirror%'")).scalar_one()
    assert (left, functions) == (0, 0)


@pytest.fixture
def interrupted(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with five calls and runs, in which `partition` ended before its first batch."""

    def stop(*_: object) -> bool:
        raise StopError

    fill(store, 5)
    with monkeypatch.context() as patched:
        patched.setattr(partitioning, "_copy_some", stop)
        with pytest.raises(StopError):
            partition(store=store)
    return store


def test_a_run_can_be_given_up(interrupted: Store) -> None:
    """Afterwards the tables are as they were, without copies and triggers."""
    abandon(store=interrupted)
    with interrupted.reading() as connection:
        own = "relnamespace = 'public'::regnamespace AND (relkind = 'p' OR relname LIKE '%\\_copy%')"
        found = text(f"SELECT count(*) FROM pg_class WHERE {own}")  # noqa: S608  our names
        triggers = text("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
        assert [connection.execute(query).scalar_one() for query in (found, triggers)] == [0, 0]
    partition(store=interrupted)
    assert differences(interrupted) == []


def test_columns_that_change_meanwhile_begin_the_copy_again(interrupted: Store) -> None:
    """Going back is refused, because writers would fail; an upgrade adds a column, and the next run starts again."""
    with pytest.raises(StoreError, match="--abandon"):
        downgrade(interrupted, "0004")
    run_sql(interrupted, "ALTER TABLE llm_call_telemetry ADD COLUMN later TEXT")
    Writer(interrupted).write(rows_of([llm_call(user="dee")]))
    run_sql(interrupted, "UPDATE llm_call_telemetry SET later = user_id")
    partition(store=interrupted)
    with interrupted.reading() as connection:
        found = connection.execute(text("SELECT later, count(*) FROM llm_call_telemetry GROUP BY later ORDER BY 1"))
        assert [tuple(line) for line in found] == [("ann", 5), ("dee", 1)]


def test_two_processes_may_do_it_at_once(store: Store) -> None:
    """Each copies what the other has not, and one of them ends it."""
    fill(store, 60)
    before = told(store)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(partition, store=store.url.render_as_string(hide_password=False)) for _ in range(2)]
        made, also_made = (run.result(60) for run in runs)
    assert made == also_made
    assert told(store) == before
    assert differences(store) == []


def test_a_full_default_partition_is_copied_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has too many records to be moved while others wait, `partition` copies again; no answer changes."""
    partition(store=store)
    monkeypatch.setattr("taskpilot_obs.store.months._MOST_MOVED", 2)
    monkeypatch.setattr("taskpilot_obs.store.writer.MonthsOnDemand.cover", lambda *_: None)
    for _ in range(2):
        fill(store, 70)
        before, rest = told(store), str(layout(store).rest)
        assert amount(store, rest) > 0
        aggregate_summaries(store=store)
        partition(store=store)
        assert told(store) == before
        assert differences(store) == []
        assert str(layout(store).rest) != rest
        assert amount(store, str(layout(store).rest)) == 0
        run_sql(store, *(f"DROP TABLE {piece.name}" for piece in layout(store).pieces))


def test_the_command(store: Store) -> None:
    """`taskpilot-obs db partition` prints how many partitions there are, and gives a run up."""
    program, url = typer.Typer(), store.url.render_as_string(hide_password=False)
    db.register(program)
    done = CliRunner().invoke(program, ["db", "partition", "--store", url])
    assert (done.exit_code, "llm_call_telemetry: 4 monthly partitions" in done.output) == (0, True)
    given_up = CliRunner().invoke(program, ["db", "partition", "--abandon", "--store", url])
    assert (given_up.exit_code, given_up.output.strip()) == (0, "no table is being copied")


def test_a_question_that_began_before_sees_every_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snapshot is older than the copied rows, so the copy takes over when it has ended, and not sooner."""
    fill(store)
    with store.reading() as connection:
        connection.execute(text("SELECT count(*) FROM store_state"))
        with monkeypatch.context() as patched:
            patched.setattr(partitioning, "_WITHIN_S", 0.3)
            with pytest.raises(short_locks.BusyError):
                partition(store=store)
        assert connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 100
    assert partition(store=store)
    assert amount(store, "llm_call_telemetry") == 100


def test_a_copy_that_differs_never_takes_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that the triggers did not see is found before the tables are changed, and the copy is dropped."""
    fill(store)
    check_equal = partitioning._check_equal

    def meddled(given: Store, table: Table) -> None:
        run_sql(given, f"DELETE FROM {table.name}_copy WHERE created_at < '{NOON - 90 * DAY}'")  # noqa: S608  our names
        check_equal(given, table)

    with monkeypatch.context() as patched:
        patched.setattr(partitioning, "_check_equal", meddled)
        with pytest.raises(StoreError, match="start again"):
            partition(store=store)
    assert amount(store, "llm_call_telemetry") == 100
    assert partition(store=store)


def test_what_a_table_with_partitions_cannot_keep_is_named(store: Store) -> None:
    """A trigger of another application stops it before anything is changed; its indexes, views and rights are kept."""
    run_sql(
        store,
        "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER mine AFTER INSERT ON agent_runs FOR EACH ROW EXECUTE FUNCTION mine()",
        "CREATE INDEX mine_too ON agent_runs (name) WHERE name LIKE 'x%'",
        "CREATE VIEW mine_as_well AS SELECT run_id FROM agent_runs WHERE name LIKE 'tri%'",
        "DROP ROLE IF EXISTS watcher",
        "CREATE ROLE watcher",
        "GRANT SELECT (run_id) ON agent_runs TO watcher",
    )
    with pytest.raises(StoreError, match="the trigger mine"):
        partition(store=store)
    run_sql(store, "DROP TRIGGER mine ON agent_runs")
    fill(store, 3)
    partition(store=store)
    assert amount(store, "mine_as_well") == 3
    with store.reading() as connection:
        asked = (
            "SELECT has_column_privilege('watcher', 'agent_runs', 'run_id', 'SELECT'), to_regclass('mine_too')::text"
        )
        assert tuple(connection.execute(text(asked)).one()) == (True, "mine_too")


def test_a_table_of_others_with_the_name_of_the_copy_is_left_alone(store: Store) -> None:
    """It is named and refused; partitions are made and dropped beside it, and a downgrade does not mind it."""
    run_sql(store, "CREATE TABLE agent_runs_copy (mine text)", "INSERT INTO agent_runs_copy VALUES ('kept')")
    with pytest.raises(StoreError, match="agent_runs_copy"):
        partition(store=store)
    abandon(store=store)
    assert amount(store, "agent_runs_copy") == 1
    run_sql(store, "ALTER TABLE agent_runs_copy RENAME TO theirs")
    partition(store=store)
    run_sql(store, "ALTER TABLE theirs RENAME TO agent_runs_copy")
    fill(store)
    assert layout(store, AGENT_RUNS).covers(floor_month(NOON - 80 * DAY))
    prune({"agent_runs": 40}, store=store, now=NOON)
    assert not layout(store, AGENT_RUNS).covers(floor_month(NOON - 80 * DAY))
    downgrade(store, "0004")
    assert amount(store, "agent_runs_copy") == 1


def test_views_keep_their_options_and_tables_their_comment(store: Store) -> None:
    """A view that hides rows from its reader hides them afterwards too."""
    run_sql(
        store,
        "CREATE VIEW mine WITH (security_barrier) AS SELECT user_id FROM llm_call_telemetry WHERE user_id = 'ann' "
        "WITH LOCAL CHECK OPTION",
        "COMMENT ON TABLE llm_call_telemetry IS 'it''s 100 % ours'",
    )
    query = text(
        "SELECT reloptions, pg_get_viewdef(oid), obj_description('llm_call_telemetry'::regclass) "
        "FROM pg_class WHERE relname = 'mine'"
    )
    with store.reading() as connection:
        before = connection.execute(query).one()
    partition(store=store)
    with store.reading() as connection:
        assert connection.execute(query).one() == before
    assert {"security_barrier=true", "check_option=local"} == set(before[0])


def test_a_view_on_a_partition_keeps_it_alone(store: Store) -> None:
    """Retention empties that month by rows, drops the others, and goes on with other tables."""
    fill(store, 130)
    partition(store=store)
    kept, *others = (piece.name for piece in layout(store).pieces if piece.end <= NOON - 40 * DAY)
    run_sql(store, f"CREATE VIEW mine AS SELECT user_id FROM {kept}")  # noqa: S608  our names
    deleted = prune({"llm_call_telemetry": 40, "agent_runs": 40}, store=store, now=NOON)
    assert deleted == {"llm_call_telemetry": 89, "agent_runs": 89}
    left = layout(store).names
    assert kept in left
    assert others
    assert not set(others) & set(left)
    assert amount(store, "mine") == 0


def test_a_busy_table_is_asked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another transaction holds the table, its writers wait for a moment only, and the rows stay for now."""
    fill(store)
    partition(store=store)
    monkeypatch.setattr("taskpilot_obs.store.old_months._DROP_WITHIN_S", 0.3)
    months = layout(store).pieces
    with store.reading() as connection:
        connection.execute(text("SELECT count(*) FROM agent_runs"))
        assert prune({"agent_runs": 40}, store=store, now=NOON) == {"agent_runs": 59}  # by rows
    assert layout(store).pieces == months
    with store.reading() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(short_locks.BusyError):
            short_locks.wait_for_older(store, within_s=0.1)


def test_a_partition_of_the_wrong_kind_is_told(store: Store) -> None:
    """`db check` names a partition without its key, and a table without a default partition."""
    partition(store=store)
    piece, rest = layout(store, AGENT_RUNS).pieces[0].name, layout(store, AGENT_RUNS).rest
    run_sql(store, f"ALTER TABLE {piece} DROP CONSTRAINT {piece}_pkey", f"DROP TABLE {rest}")
    found = differences(store)
    assert f"agent_runs: the primary key of the partition {piece} is (), and should be (run_id)" in found
    assert any("there is no default partition" in each for each in found)


def test_sqlite_has_no_partitions(tmp_path: object) -> None:
    """The command says what they are for."""
    with store_at(sqlite_url(tmp_path)) as file:  # type: ignore[arg-type]
        for change in (partition, abandon):
            with pytest.raises(ConfigurationError, match="PostgreSQL"):
                change(store=file)


def test_months_follow_each_other() -> None:
    """Also over the end of a year."""
    assert next_month(datetime(2025, 12, 1, tzinfo=UTC)) == datetime(2026, 1, 1, tzinfo=UTC)


def test_summing_up_goes_on_where_partitions_cannot_be_made(store: Store) -> None:
    """A database that refuses new tables has its hours summed up, and records in the default partition."""
    fill(store, 3)
    partition(store=store)
    run_sql(
        store,
        *(f"DROP TABLE {piece.name}" for piece in layout(store).pieces if piece.start > NOON),
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'",
        "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse()",
    )
    assert aggregate_summaries(lookback_hours=None, store=store) == 3
    assert not layout(store).covers(next_month(floor_month(datetime.now(UTC))))


def test_a_writer_waits_once_for_all_months(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the table is held, a batch of many months looks for its lock as long as one of a month does."""
    partition(store=store)
    monkeypatch.setattr("taskpilot_obs.store.months._MAKE_WITHIN_S", 0.5)
    months = [NOON - n * 31 * DAY for n in range(12)]
    with store.writing() as connection:
        connection.execute(text("LOCK TABLE ONLY llm_call_telemetry IN SHARE UPDATE EXCLUSIVE MODE"))
        began = time.monotonic()
        Writer(store).write(rows_of([llm_call(at) for at in months]))
        took = time.monotonic() - began
    assert took < 0.5 * 6
    assert amount(store, str(layout(store).rest)) == 12


def test_deletions_by_place_never_meet_a_swap(store: Store) -> None:
    """While rows are being deleted by their place, no copy can take the place of their table."""
    fill(store, 3)
    with store.writing() as connection:
        some = picked(connection, LLM_CALLS, LLM_CALLS.c.user_id == "ann", 2)
        assert "ctid" in str(some)
        with pytest.raises(StoreUnavailableError):
            run_sql(store, "LOCK TABLE llm_call_telemetry IN ACCESS EXCLUSIVE MODE NOWAIT")
        assert connection.execute(delete(LLM_CALLS).where(some)).rowcount == 2
    partition(store=store)
    with store.writing() as connection:
        assert "ctid" not in str(picked(connection, LLM_CALLS, LLM_CALLS.c.user_id == "ann", 2))


def test_a_role_that_sees_no_activity_waits_for_users(store: Store) -> None:
    """What a session does is hidden from other roles, and still its transaction is waited for."""
    run_sql(store, "DROP ROLE IF EXISTS bystander", "CREATE ROLE bystander LOGIN")
    with closing(Store(store.url.set(username="bystander").render_as_string())) as bystander:
        with store.reading() as connection:
            connection.execute(text("SELECT 1"))
            with pytest.raises(short_locks.BusyError):
                short_locks.wait_for_older(bystander, within_s=0.1)
        short_locks.wait_for_older(bystander, within_s=5)


def test_the_doctor_needs_no_right_on_partitions(store: Store) -> None:
    """A role with rights on the tables alone looks at the store; what it may not read it leaves out."""
    partition(store=store)
    run_sql(
        store,
        "DROP ROLE IF EXISTS looker",
        "CREATE ROLE looker LOGIN",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker",
        *(f"REVOKE ALL ON {name} FROM looker" for table in BIG_TABLES for name in layout(store, table).names),
    )
    findings = {finding.text for finding in check_store(store.url.set(username="looker").render_as_string())}
    assert "no monthly partition is missing" in findings


def test_the_doctor_tells_of_months_that_are_missing(store: Store) -> None:
    """Without the rights of the owner nothing is made ahead, which the doctor notices before it costs time."""
    partition(store=store)
    url = store.url.render_as_string(hide_password=False)
    assert "no monthly partition is missing" in {finding.text for finding in check_store(url)}
    run_sql(store, *(f"DROP TABLE {piece.name}" for piece in layout(store).pieces))
    names = "series_id, created_at, streaming, latency_bin, latency_ms, telemetry_id, request_id, status"
    values = "1, now(), false, 1, 1, 'one', 'one', 'success'"
    run_sql(store, f"INSERT INTO llm_call_telemetry ({names}) VALUES ({values})")  # noqa: S608  our names
    (finding,) = [finding for finding in check_store(url) if "next month" in finding.text]
    assert "default partition" in finding.text
    assert "aggregate" in finding.remedy
    aggregate_summaries(store=store)
    assert "no monthly partition is missing" in {finding.text for finding in check_store(url)}
