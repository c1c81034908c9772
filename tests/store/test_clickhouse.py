"""A store in ClickHouse, on the real engine: chdb. Where it is not installed, these tests are skipped with that reason.

The longer tests of the store run on it by `make test-full`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from _clickhouse import StandIn, needs_clickhouse, new_clickhouse, stand_in
from _stored import NOON, denial, llm_call, store_at, task, verdict
from sqlalchemy import select, text

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import (
    Store,
    StoreExporter,
    clickhouse_sums,
    clickhouse_upkeep,
    downgrade,
    erase,
    prune,
    upgrade,
)
from taskpilot_obs.store.clickhouse_upkeep import keep_for
from taskpilot_obs.store.differences import differences
from taskpilot_obs.store.marks import deleted_from, server_clock
from taskpilot_obs.store.on_clickhouse import SETTINGS
from taskpilot_obs.store.rows import FEEDBACK_COMMENT, LLM_COLUMNS, rows_of
from taskpilot_obs.store.tables import FEEDBACK, to_microseconds
from taskpilot_obs.store.urls import parsed
from taskpilot_obs.store.writer import Writer
from taskpilot_obs.testing import fresh_recorder

SOON = NOON + timedelta(minutes=1)


@pytest.fixture
def store() -> Iterator[Store]:
    with store_at(new_clickhouse()) as opened:
        yield opened


def count(store: Store, table: str = "llm_call_telemetry") -> int:
    with store.reading() as connection:
        return int(connection.execute(text(f"SELECT count() FROM {table}")).scalar_one())  # noqa: S608  our names


@needs_clickhouse
def test_a_batch_that_is_written_again_changes_nothing(store: Store) -> None:
    """Rows are known by their IDs before and after the server merges its parts, and money is exact."""
    calls = [llm_call(cost=Decimal("0.010500000123")) for _ in range(20)]
    rows = rows_of([*calls, llm_call(cost=None, status=Status.ERROR, error_type="Oops"), task(), verdict(), denial()])
    Writer(store).write(rows)
    first = get_stats("1h", store=store, now=SOON)
    Writer(store).write(rows)
    again = get_stats("1h", store=store, now=SOON)
    with store.writing() as connection:
        connection.execute(text("OPTIMIZE TABLE llm_call_telemetry FINAL"))
    merged = get_stats("1h", store=store, now=SOON)
    assert first == again == merged
    assert (first.requests, first.failures, first.cost_usd) == (21, 1, Decimal("0.21000000246"))
    assert first.errors_by_type == {"Oops": 1}
    assert [count(store, name) for name in ("agent_runs", "user_feedback", "policy_violations")] == [1, 1, 1]


@needs_clickhouse
def test_a_comment_on_a_verdict_replaces_the_row(store: Store) -> None:
    """A verdict that is repeated with a comment gets it, also when the batch is written again, and nothing is lost."""
    first = verdict()
    said = first._replace(time_unix_ns=first.time_unix_ns + 1_000, attributes={FEEDBACK_COMMENT: "it's 100 % \\ right"})
    Writer(store).write(rows_of([first]))
    batch = rows_of([said, llm_call(cost=Decimal(1))])
    for _ in range(2):
        Writer(store).write(batch)
        with store.reading() as connection:
            found = connection.execute(select(FEEDBACK)).one()
        assert (found.comment, found.correct, found.revision) == ("it's 100 % \\ right", True, False)
        assert to_microseconds(found.created_at) * 1_000 == first.time_unix_ns
    assert get_stats("1h", store=store, now=SOON).cost_usd == 1


@needs_clickhouse
def test_negative_money_is_exact(store: Store) -> None:
    """A correction below zero is stored as it was given."""
    calls = rows_of([llm_call(cost=Decimal(1))])
    place = LLM_COLUMNS.index("cost_nano")
    row = calls.llm_calls[0]
    Writer(store).write(calls._replace(llm_calls=[(*row[:place], -1_500_000_000, -7, *row[place + 2 :])]))
    with store.reading() as connection:
        found = connection.execute(text("SELECT cost_nano, cost_rest FROM llm_call_telemetry")).one()
    assert tuple(found) == (-1_500_000_000, -7)


@needs_clickhouse
def test_views_need_no_settings(store: Store) -> None:
    """A program that asks a view without the settings of this library counts a repeated batch once."""
    rows = rows_of([llm_call(cost=Decimal(1)), llm_call(cost=None, status=Status.ERROR)])
    plain = ", ".join(f"{name} = 0" for name in SETTINGS if not name.endswith("_sync"))
    with store.writing() as connection:
        connection.execute(text("SYSTEM STOP MERGES llm_call_telemetry"))
    for _ in range(2):
        Writer(store).write(rows)
    asked = "SELECT sum(requests), sum(failures), sum(cost_usd), sum(requests_with_known_cost) FROM v_daily_costs"
    with store.reading() as connection:
        assert tuple(connection.execute(text(f"{asked} SETTINGS {plain}")).one()) == (2, 1, 1, 1)
        latency = connection.execute(text(f"SELECT sum(requests) FROM v_daily_latency SETTINGS {plain}"))  # noqa: S608
        assert latency.scalar_one() == 2


@needs_clickhouse
def test_series_that_a_failover_lost_are_named_again(store: Store) -> None:
    """Calls keep their model's name where the server that took over lacks it."""
    writer = Writer(store)
    writer.write(rows_of([llm_call()]))
    with store.writing() as connection:
        connection.execute(text("TRUNCATE TABLE llm_series"))
    writer.write(rows_of([llm_call()]))
    assert count(store, "llm_series") == 1


@needs_clickhouse
def test_a_retention_of_parts_of_a_second_is_set_once() -> None:
    """A TTL counts whole seconds, and one that is set already is left alone."""
    with over_http() as (server, url), store_at(url) as store:
        for _ in range(2):
            prune({"llm_call_telemetry": 30.0000071}, store=store, now=NOON)
        set_ttl = [seen for seen in server.seen if "MODIFY TTL" in seen.query]
        assert len(set_ttl) == 1
        assert "mutations_sync = 0" in set_ttl[0].query, "the server rewrites parts for hours"


@needs_clickhouse
def test_an_erasure_waits_for_the_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks until the rows are gone, and reports what it waits for when it gives up."""
    Writer(store).write(rows_of([llm_call(), llm_call(user="bob")]))
    with store.writing() as connection:
        connection.execute(text("SYSTEM STOP MERGES llm_call_telemetry"))
    monkeypatch.setattr(clickhouse_upkeep, "PATIENCE_S", 0.1)
    with pytest.raises(StoreUnavailableError, match=r"has not finished .* goes on trying"):
        erase(user="ann", store=store)
    with store.writing() as connection:
        connection.execute(text("SYSTEM START MERGES llm_call_telemetry"))
    monkeypatch.setattr(clickhouse_upkeep, "PATIENCE_S", 60.0)
    assert erase(user="bob", store=store).erased["llm_call_telemetry"] == 1
    assert count(store) == 0


@needs_clickhouse
def test_tables_are_those_that_the_code_expects(store: Store) -> None:
    """A fresh store has no differences, and one without a column names it and gets it back by the upgrade."""
    assert differences(store) == []
    with store.writing() as connection:
        connection.execute(text("ALTER TABLE agent_runs DROP COLUMN variant"))
    assert differences(store) == ["agent_runs: the column variant is missing"]
    with store_at(store.target.name) as upgraded:
        assert differences(upgraded) == []


@needs_clickhouse
def test_an_upgrade_builds_an_index_that_is_missing_and_never_goes_back(store: Store) -> None:
    """Rows are found by it as before; going back to an older version is refused, and changes nothing."""
    Writer(store).write(rows_of([llm_call(user="ann"), llm_call(user="bob")]))
    with store.writing() as connection:
        connection.execute(text("ALTER TABLE llm_call_telemetry DROP INDEX ix_user_id"))
    assert differences(store) == ["llm_call_telemetry: the index ix_user_id is missing"]
    upgrade(store)
    assert differences(store) == []
    with pytest.raises(ConfigurationError, match="cannot go back"):
        downgrade(store, "0002")
    assert get_stats("1h", store=store, now=SOON, user_id="ann").requests == 1


@needs_clickhouse
def test_an_upgrade_leaves_newer_tables_alone(store: Store) -> None:
    """A newer version that allows this code stays the one that is stated."""
    columns = "taskpilot_obs_version (version_num, min_code)"
    with store.writing() as connection:
        connection.execute(text(f"INSERT INTO {columns} VALUES ('9999', '0004')"))  # noqa: S608  a constant
    upgrade(store)
    assert store.version() == "9999"


@needs_clickhouse
def test_a_longer_ttl_forgets_nothing_that_was_deleted(store: Store) -> None:
    """What the server deleted by a shorter TTL is known to be missing after a longer one is set."""
    with store.reading() as connection:
        now = server_clock(connection)
    Writer(store).write(rows_of([task(now - timedelta(days=20)), task(now - timedelta(days=1))]))
    with store.writing() as connection:  # by hand: no mark tells how far it goes
        keep_for(connection, "agent_runs", "created_at", timedelta(days=10))
    prune({"agent_runs": 300}, store=store, now=now)
    with store.reading() as connection:
        before = deleted_from(connection, "agent_runs").before
    assert before is not None
    assert before > now - timedelta(days=11)


@needs_clickhouse
def test_retention_is_a_ttl_that_answers_know(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls older than the TTL stay in sums; an answer from rows states from when on it is complete."""
    monkeypatch.setattr(clickhouse_sums, "SETTLE", timedelta(0))
    now = NOON + timedelta(days=40)
    Writer(store).write(rows_of([llm_call(NOON), llm_call(NOON + timedelta(days=35))]))
    assert prune({"llm_call_telemetry": 30}, store=store, now=now, dry_run=True) == {"llm_call_telemetry": 1}
    assert prune({"llm_call_telemetry": 30}, store=store, now=now) == {"llm_call_telemetry": 1}
    with store.reading() as connection:
        made = connection.execute(text("SHOW CREATE TABLE llm_call_telemetry")).scalar_one()
    assert "TTL toDateTime(created_at) + toIntervalSecond(2592000)" in made
    answer = get_stats(timedelta(days=41), store=store, now=now)
    assert (answer.requests, answer.incomplete_before) == (2, None)
    of_user = get_stats(timedelta(days=41), store=store, now=now, user_id="ann")
    assert of_user.incomplete_before is not None
    assert of_user.requests <= 1
    with pytest.raises(ConfigurationError, match="no table budget_ledger"):
        prune({"budget_ledger": 30}, store=store, now=now)
    with pytest.raises(ConfigurationError, match="at most 20000 days"):
        prune(36_000, store=store, now=now)
    with pytest.raises(ConfigurationError, match="at most 20000 days"):
        StoreExporter(store.target.name, retention_days=36_000)


@needs_clickhouse
def test_a_user_is_erased_and_the_others_stay(store: Store) -> None:
    """Rows of one user leave every table at once; a dry run counts them and changes nothing."""
    Writer(store).write(rows_of([llm_call(), llm_call(user="bob"), task(user="ann"), task(user="bob")]))
    told = erase(user="ann", store=store, dry_run=True).erased
    assert (told["llm_call_telemetry"], told["agent_runs"], count(store)) == (1, 1, 2)
    assert erase(user="ann", store=store).erased["llm_call_telemetry"] == 1
    assert (count(store), count(store, "agent_runs")) == (1, 1)


@needs_clickhouse
def test_budgets_need_a_store_with_transactions(tmp_path: Path) -> None:
    """`configure` refuses budgets in ClickHouse, and takes them where `budget_store=` names another store."""
    url = new_clickhouse()
    daily = Budget("daily", limit_usd=5, period="day")
    with store_at(url):
        with (
            pytest.raises(ConfigurationError, match=r"budget_store: .* has no transactions"),
            fresh_recorder(store=url, budgets=[daily]),
        ):
            pass
        with fresh_recorder(store=url, budgets=[daily], budget_store=f"sqlite:///{tmp_path / 'budgets.db'}"):
            pass
        with pytest.raises(ConfigurationError, match=r"keeps no budgets.* budget_store="):
            budget_status([daily], store=url)


@needs_clickhouse
def test_the_last_row_of_a_call_counts(store: Store) -> None:
    """A call that is written again with another cost is one call, and has the later cost."""
    for cost in (Decimal(1), Decimal(2)):
        Writer(store).write(rows_of([llm_call(invocation_id="one", cost=cost)]))
        found = get_stats("1h", store=store, now=SOON)
        assert (found.requests, found.cost_usd) == (1, cost)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("clickhouse:///telemetry", "needs a host"),
        ("clickhouse://host/db?sslmode=require", "has no option sslmode"),
        ("clickhouse://host/db?secure=perhaps", "takes 1 or 0"),
        ("clickhouse://host/db?connect_timeout=soon", "takes a number of seconds"),
        ("clickhouse+chdb://", "needs a folder"),
    ],
)
def test_a_wrong_url_is_refused_at_once(url: str, said: str) -> None:
    """Options that have no effect, and values that cannot be read, are errors that name what is allowed."""
    with pytest.raises(ConfigurationError, match=said):
        parsed(url)


def test_a_url_is_shown_without_its_secrets() -> None:
    """Messages name host, port and database only."""
    target = parsed("clickhouse://me:secret@host:8443/telemetry?secure=1")
    assert target.name == "clickhouse://host:8443/telemetry"
    assert "secret" not in target.key


# --- over HTTP -------------------------------------------------------------------------------------------------------


@contextmanager
def over_http() -> Iterator[tuple[StandIn, str]]:
    with stand_in(new_clickhouse()) as server:
        yield server, f"clickhouse://me:secret@127.0.0.1:{server.port}/{server.database}"


@needs_clickhouse
def test_a_store_is_filled_and_asked_over_http(tmp_path: Path) -> None:
    """The driver's requests carry the user, the settings and whole batches, and answers come back."""
    with over_http() as (server, url), store_at(url) as store:
        exporter = StoreExporter(url, spool_dir=tmp_path)
        exporter.export([llm_call(cost=Decimal("0.25")) for _ in range(1_000)])
        exporter.shutdown(5)
        assert get_stats("1h", store=store, now=SOON).cost_usd == 250
        inserts = [seen for seen in server.seen if "INSERT INTO llm_call_telemetry" in seen.query]
        assert len(inserts) == 1, "a batch is one request a table"
        assert inserts[0].user == "me"
        assert inserts[0].settings["async_insert"] == "0"
        assert all(seen.settings.get("final") == "1" for seen in server.seen if "FROM llm_call" in seen.query)


@needs_clickhouse
def test_records_gather_to_batches(tmp_path: Path) -> None:
    """Calls that come one by one are one insert: a batch waits for a second, or for a flush, to fill."""
    with over_http() as (server, url), store_at(url) as store:
        exporter = StoreExporter(url, spool_dir=tmp_path)
        assert exporter.linger_s == 1.0
        exporter.linger_s = 60.0  # only the flush ends the waiting, however slow this machine is
        worker = Batched(exporter, name="store", counters=InternalCounters())
        for _ in range(20):
            worker.export([llm_call()])
            time.sleep(0.002)
        assert worker.flush(30)
        assert worker.shutdown(30)
        assert len([seen for seen in server.seen if "INSERT INTO llm_call_telemetry" in seen.query]) == 1
        assert count(store) == 20


@needs_clickhouse
def test_what_a_server_that_is_away_misses_is_written_once(tmp_path: Path) -> None:
    """Batches wait in the spool while the server fails, also after half of one was written, and are counted once."""
    with over_http() as (server, url), store_at(url) as store:
        exporter = StoreExporter(url, spool_dir=tmp_path)
        server.fails_on = "INSERT INTO agent_runs"
        batch: list[Invocation] = [*(llm_call() for _ in range(5)), task()]
        exporter.export(batch)
        server.fails_on = "INSERT"
        exporter.export([llm_call()])
        server.fails_on = None
        assert exporter.flush(30)
        exporter.shutdown(5)
        assert (count(store), count(store, "agent_runs")) == (6, 1)


@needs_clickhouse
def test_failures_of_a_server_are_told_apart() -> None:
    """A refused row is refused for good; everything else may work later, and names the cause."""
    with over_http() as (server, url), store_at(url) as store:
        server.code, server.fails_on = 516, "SELECT"
        with pytest.raises(StoreUnavailableError, match="the user or the password is wrong"):
            count(store)
        server.code = 27
        with pytest.raises(StoreError, match="refused a statement") as refused:
            count(store)
        assert not isinstance(refused.value, StoreUnavailableError)
        server.fails_on = None
    with pytest.raises(StoreUnavailableError, match=r"does not answer|no server listens"):
        Store(url).require_usable()
