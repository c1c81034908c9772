"""The engines for every test of the store: one file each, one real PostgreSQL server, and one embedded ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from _clickhouse import IN_FULL, drop
from _postgres import Server, postgres_server
from _stored import new_store, store_at

from taskpilot_obs.store import Store, clickhouse_sums


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


_LEDGER = "budgets are in another store"
_CLOCK = "a TTL goes by the clock of the server: see test_clickhouse_sums.py and test_store_model.py"
_LOCKS = "there are neither locks nor transactions: see test_clickhouse_sums.py"
_SHAPE = "rows are found by the order and the skip indexes of their tables"
_NO_WAY_BACK = "a store in ClickHouse has one version of its tables: see test_clickhouse.py"
_ONE_PROCESS = "the embedded engine opens a folder in one process"
_DRIVER = "the driver's connections do not tell whether they are closed"
NOT_ON_CLICKHOUSE = {
    "test_budgets_of_tenants_who_are_gone": _LEDGER,
    "test_ended_lines_of_the_ledger_go": _LEDGER,
    "test_a_tenant_is_gone_everywhere": _LEDGER,
    "test_a_user_is_gone_and_what_cannot_be_told_apart_is_listed": _LEDGER,
    "test_rows_answer_where_summaries_were_deleted_sooner": _CLOCK,
    "test_every_answer_says_from_when_on_it_is_complete": _CLOCK,
    "test_signals_divide_what_is_of_one_age": _CLOCK,
    "test_a_mark_is_never_beyond_the_newest_row": _CLOCK,
    "test_a_blind_store_is_repaired": _CLOCK,
    "test_a_late_record_is_in_no_sum": _CLOCK,
    "test_writers_do_not_keep_old_rows_alive": _CLOCK,
    "test_roll_ups_that_are_not_smaller_are_not_made": _CLOCK,
    "test_summaries_outlive_rows": _CLOCK,
    "test_what_cannot_be_told_any_more_is_said": _CLOCK,
    "test_a_call_that_comes_too_late_is_not_counted": _CLOCK,
    "test_many_changed_hours_beside_pruned_ones_are_answered": _CLOCK,
    "test_a_long_time_that_is_all_pruned_is_answered_from_hours": _CLOCK,
    "test_each_table_has_an_age_of_its_own": _CLOCK,
    "test_a_table_is_not_pruned_while_its_hours_change": _CLOCK,
    "test_an_exporter_sums_up_and_prunes_by_itself": _CLOCK,
    "test_many_rows_go_in_many_small_transactions": _LOCKS,
    "test_every_hour_of_a_batch_is_marked_once": _LOCKS,
    "test_an_older_sum_never_replaces_a_newer_one": _LOCKS,
    "test_a_process_that_died_in_the_middle_leaves_work_for_the_next": _LOCKS,
    "test_many_lines_are_put_in_place_in_many_small_transactions": _LOCKS,
    "test_who_is_overtaken_between_two_transactions_stops": _LOCKS,
    "test_who_dies_between_two_transactions_leaves_work_for_the_next": _LOCKS,
    "test_nothing_to_put_is_no_statement": _LOCKS,
    "test_what_is_being_summed_up_is_summed_up_again": _LOCKS,
    "test_a_writer_does_not_wait_for_an_erasure": _LOCKS,
    "test_a_call_that_is_written_stays_as_it_is": "of rows with one ID the last one counts: see test_clickhouse.py",
    "test_who_called_is_found_by_an_index": _SHAPE,
    "test_views_come_and_go_with_the_version": _NO_WAY_BACK,
    "test_tables_without_the_index_by_session_are_used_and_get_it": _NO_WAY_BACK,
    "test_going_back_keeps_rows_and_sums": _NO_WAY_BACK,
    "test_times_are_utc": "a session has no zone: moments are text in UTC",
    "test_writers_and_sums_of_several_processes_agree": _ONE_PROCESS,
    "test_several_processes_make_one_store": _ONE_PROCESS,
    "test_a_child_leaves_the_connections_of_its_parent_alone": _ONE_PROCESS,
    "test_a_child_that_closes_its_store_cuts_off_nobody": _ONE_PROCESS,
    "test_a_child_of_a_process_that_closed_its_store_begins_anew": _ONE_PROCESS,
    "test_a_reader_that_is_at_work_when_its_store_is_closed_closes_its_connection": _DRIVER,
    "test_a_shutdown_that_waits_no_longer_leaves_nothing_open": "there is no lock that a writer waits for",
    "test_sixteen_processes_lose_and_double_nothing": _ONE_PROCESS,
    "test_a_fork_writes_through_connections_of_its_own": _ONE_PROCESS,
    "test_processes_that_rate_one_request_at_once_count_once": _ONE_PROCESS,
}
"""Tests whose subject a store in ClickHouse lacks, or has in another way (docs/clickhouse.md), and which one."""


@pytest.fixture(params=["sqlite", "postgresql", IN_FULL])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that does not exist yet. One in ClickHouse sums up hours at once, and not after five minutes."""
    if request.param == "clickhouse":
        reason = _LEDGER if request.path.stem.startswith("test_budget") else None
        if reason := reason or NOT_ON_CLICKHOUSE.get(request.function.__name__):
            pytest.skip(f"not on ClickHouse: {reason}")
        monkeypatch.setattr(clickhouse_sums, "SETTLE", timedelta(0))
    made = new_store(request, tmp_path)
    yield made
    if request.param == "clickhouse":
        drop(made)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with store_at(url) as opened:
        yield opened
