"""Summaries of a store in ClickHouse, on the real engine: chdb. Where it is not installed, these tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from _clickhouse import needs_clickhouse, new_clickhouse
from _stored import NOON, after_erasure, llm_call, store_at
from sqlalchemy import select, text

from taskpilot_obs._support.guarded import forget_causes
from taskpilot_obs.exceptions import StoreVersionError
from taskpilot_obs.records import Status
from taskpilot_obs.stats import get_cost_breakdown, get_stats
from taskpilot_obs.store import Store, aggregate_summaries, clickhouse_sums, erase, prune, rebuild_summaries, upgrade
from taskpilot_obs.store.adding_up import hours_from_rows
from taskpilot_obs.store.background import Maintenance
from taskpilot_obs.store.clickhouse_upkeep import lifetime_of
from taskpilot_obs.store.differences import differences
from taskpilot_obs.store.health import health_of
from taskpilot_obs.store.marks import server_clock
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.seen import providers_seen
from taskpilot_obs.store.tables import SUMMARIES, SUMMARY_WORK
from taskpilot_obs.store.writer import Writer

pytestmark = needs_clickhouse
DAYS_LATER = NOON + timedelta(days=3)
FIRST = Path(__file__).parent / "clickhouse_first.sql"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """One whose hours are summed up at once, and not after five minutes without a write."""
    monkeypatch.setattr(clickhouse_sums, "SETTLE", timedelta(0))
    with store_at(new_clickhouse()) as opened:
        yield opened


def some_calls() -> list[Any]:
    """Calls of two days, of two tenants, with a failure."""
    moments = [NOON + timedelta(hours=step) for step in (0, 0, 1, 1, 20, 20)]
    calls = [llm_call(at, tenant=("acme", "bolt")[n % 2], cost=Decimal("0.1")) for n, at in enumerate(moments)]
    return [*calls, llm_call(NOON, status=Status.ERROR, error_type="Oops", cost=None, user="bob", duration_s=2.0)]


def told(store: Store, now: datetime = DAYS_LATER) -> dict[str, Any]:
    return get_stats("7d", store=store, now=now).model_dump()


def present(store: Store) -> datetime:
    """Half past the hour of the server's clock."""
    with store.reading() as connection:
        return server_clock(connection).replace(minute=30, second=0, microsecond=0)


def forget_rows(store: Store) -> None:
    """Delete every row behind the library's back: what is told then comes from summaries."""
    with store.writing() as connection:
        connection.execute(text("TRUNCATE TABLE llm_call_telemetry"))


def waiting(store: Store) -> set[tuple[str, datetime]]:
    """The hours and days that have to be summed up."""
    work = SUMMARY_WORK.c
    with store.reading() as connection:
        found = connection.execute(select(work.period, work.period_start).where(work.lacking.is_(None)))
        return {(period, start) for period, start in found}


def test_summaries_answer_as_rows_do(store: Store) -> None:
    """Counts, money, percentiles and failures are those of the rows, whose absence changes nothing."""
    Writer(store).write(rows_of(some_calls()))
    from_rows, by_tenant = told(store), get_cost_breakdown("7d", store=store, now=DAYS_LATER)
    assert aggregate_summaries("daily", None, store=store) == 3 + 2
    assert waiting(store) == set()
    forget_rows(store)
    assert told(store) == from_rows
    assert get_cost_breakdown("7d", store=store, now=DAYS_LATER) == by_tenant
    assert from_rows["cost_usd"] == Decimal("0.6")


def test_a_batch_that_is_written_again_is_counted_once_in_summaries(store: Store) -> None:
    """A repeated batch has its hours summed up again, to the sums that they had."""
    rows = rows_of(some_calls())
    Writer(store).write(rows)
    aggregate_summaries("daily", None, store=store)
    first = told(store)
    Writer(store).write(rows)
    assert told(store) == first
    assert aggregate_summaries("daily", None, store=store) == 3 + 2
    forget_rows(store)
    assert told(store) == first


def test_calls_that_come_late_are_counted_at_once(store: Store) -> None:
    """An hour that was summed up and gets another call is read from rows until it is summed up again."""
    Writer(store).write(rows_of(some_calls()))
    aggregate_summaries("daily", None, store=store)
    Writer(store).write(rows_of([llm_call(NOON + timedelta(minutes=5), cost=Decimal(1))]))
    assert waiting(store) == {("hourly", NOON), ("daily", NOON.replace(hour=0))}
    assert told(store)["cost_usd"] == Decimal("1.6")
    assert aggregate_summaries("daily", None, store=store) == 2
    forget_rows(store)
    assert told(store)["cost_usd"] == Decimal("1.6")


def test_hours_that_are_still_written_are_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is summed up that was written in the last five minutes, because rows may be on their way."""
    monkeypatch.setattr(clickhouse_sums, "SETTLE", timedelta(minutes=5))
    Writer(store).write(rows_of(some_calls()))
    assert aggregate_summaries("daily", None, store=store) == 0
    assert rebuild_summaries(store=store) == 0
    assert told(store)["requests"] == 7


def test_sums_that_took_too_long_are_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was halted while it summed up writes nothing, because rows may have come since."""
    Writer(store).write(rows_of(some_calls()))
    monkeypatch.setattr(clickhouse_sums, "_LONGEST", timedelta(0))
    assert aggregate_summaries("daily", None, store=store) == 0
    assert len(waiting(store)) == 5


def test_hours_that_take_too_long_together_are_summed_up_one_by_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy day is summed up hour by hour; what still takes too long is left for later, and logged."""
    together = hours_from_rows

    def slow(connection: Any, starts: Sequence[datetime]) -> Any:
        longest = timedelta(0) if len(starts) > 1 else timedelta(minutes=5)
        monkeypatch.setattr(clickhouse_sums, "_LONGEST", longest)
        return together(connection, starts)

    monkeypatch.setattr(clickhouse_sums, "hours_from_rows", slow)
    Writer(store).write(rows_of(some_calls()))
    assert aggregate_summaries("hourly", None, store=store) == 3
    assert "store summaries" not in caplog.text
    monkeypatch.setattr(clickhouse_sums, "_LONGEST", timedelta(0))
    forget_causes()
    assert aggregate_summaries("daily", None, store=store) == 0
    assert "the daily sums of 2026-03-10 00:00 UTC took over" in caplog.text


def test_summing_up_again_drops_what_is_gone(store: Store) -> None:
    """Lines of a model whose rows were deleted by hand are in no answer after `rebuild_summaries`."""
    Writer(store).write(rows_of([llm_call(NOON), llm_call(NOON, request_model="o3", response_model="o3")]))
    aggregate_summaries("daily", None, store=store)
    with store.writing() as connection:
        connection.execute(text("ALTER TABLE llm_call_telemetry DELETE WHERE model_name = 'o3'"))
    assert rebuild_summaries(store=store) == 2
    forget_rows(store)
    assert list(told(store)["by_model"]) == ["gpt-4o"]
    assert len(get_cost_breakdown("7d", store=store, now=DAYS_LATER).by_model) == 1


def test_an_erased_user_leaves_the_sums(store: Store) -> None:
    """What is left is told at once, and the hours wait until the server has surely rewritten its parts."""
    Writer(store).write(rows_of(some_calls()))
    aggregate_summaries("daily", None, store=store)
    assert erase(user="bob", store=store).erased["llm_call_telemetry"] == 1
    assert (told(store)["requests"], told(store)["failures"]) == (6, 0)
    assert waiting(store) == {("hourly", NOON), ("daily", NOON.replace(hour=0))}
    assert aggregate_summaries("daily", None, store=store) == 0


def test_sums_of_calls_that_were_read_before_an_erasure_are_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that read the calls of a user before they were erased stores no sums that count."""
    together = hours_from_rows

    def overtaken(connection: Any, starts: Sequence[datetime]) -> Any:
        found = together(connection, starts)
        erase(user="bob", store=store)
        return found

    Writer(store).write(rows_of(some_calls()))
    monkeypatch.setattr(clickhouse_sums, "hours_from_rows", overtaken)
    aggregate_summaries("daily", None, store=store)
    monkeypatch.setattr(clickhouse_sums, "hours_from_rows", together)
    assert ("hourly", NOON) in waiting(store)
    assert (told(store)["requests"], told(store)["failures"]) == (6, 0)
    with after_erasure(store):
        assert waiting(store) == set()
        forget_rows(store)
        assert (told(store)["requests"], told(store)["failures"]) == (6, 0)


def test_an_erased_tenant_leaves_sums_of_calls_that_are_gone(store: Store) -> None:
    """A tenant is taken out of hours and days whose rows were deleted by age; no line names it, and none is lost."""
    now = present(store)
    old = now - timedelta(days=40)
    Writer(store).write(rows_of([llm_call(old, tenant=name, cost=Decimal(1)) for name in ("acme", "acme", "bolt")]))
    Writer(store).write(rows_of([llm_call(now - timedelta(hours=2), tenant="acme", cost=Decimal(1))]))
    prune({"llm_call_telemetry": 30}, store=store, now=now)
    forget_rows(store)
    everything = timedelta(days=60)
    assert get_stats(everything, store=store, now=now).requests == 3 + 1
    found = erase(tenant="acme", store=store).erased
    assert found["llm_usage_summaries"] > 0
    left = get_stats(everything, store=store, now=now)
    assert (left.requests, left.cost_usd, left.incomplete_before) == (1, Decimal(1), None)
    assert get_stats(everything, store=store, now=now, tenant_id="acme").requests == 0
    with store.reading() as connection:
        named = select(SUMMARIES.c.period).where(SUMMARIES.c.organization_id == "acme")
        assert connection.execute(named).all() == []


def test_an_erased_tenant_is_in_no_list_of_providers(store: Store) -> None:
    """A provider that only an erased tenant called is not listed, though empty lines stand in the place of its sums."""
    now = present(store)
    old = now - timedelta(days=40)
    Writer(store).write(rows_of([llm_call(old, tenant="acme", provider="mistral"), llm_call(old, tenant="bolt")]))
    Writer(store).write(rows_of([llm_call(now - timedelta(hours=2), tenant="bolt")]))
    prune({"llm_call_telemetry": 30}, store=store, now=now)
    forget_rows(store)
    erase(tenant="acme", store=store)
    with store.reading() as connection:
        assert [seen.provider for seen in providers_seen(connection, None)] == ["openai"]


def test_a_ttl_waits_until_old_calls_are_summed_up(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls that were written a moment ago get no TTL that would delete them unsummed; the next round sets it."""
    now = present(store)
    Writer(store).write(rows_of([llm_call(now - timedelta(days=40)), llm_call(now - timedelta(hours=2))]))
    forget_causes()
    monkeypatch.setattr(clickhouse_sums, "SETTLE", timedelta(minutes=5))
    assert prune({"llm_call_telemetry": 30}, store=store, now=now) == {"llm_call_telemetry": 0}
    assert "are not summed up yet" in caplog.text
    with store.reading() as connection:
        assert lifetime_of(connection, "llm_call_telemetry") is None
    monkeypatch.setattr(clickhouse_sums, "SETTLE", timedelta(0))
    assert prune({"llm_call_telemetry": 30}, store=store, now=now) == {"llm_call_telemetry": 1}
    answer = get_stats(timedelta(days=60), store=store, now=now)
    assert (answer.requests, answer.incomplete_before) == (2, None)


def test_an_hour_that_is_never_summed_up_again_is_no_work(store: Store) -> None:
    """A call that comes for an hour which the TTL deletes leaves nothing that `doctor` would ask to sum up."""
    now = present(store)
    prune({"llm_call_telemetry": 30}, store=store, now=now)
    Writer(store).write(rows_of([llm_call(now - timedelta(days=31)), llm_call(now - timedelta(days=2))]))
    assert health_of(store.target.name).hours_to_sum_up == 1
    aggregate_summaries("daily", None, store=store)
    found = health_of(store.target.name)
    assert (found.hours_to_sum_up, found.oldest_work) == (0, None)


def test_calls_that_the_server_deleted_unsummed_are_known_to_be_missing(store: Store) -> None:
    """Where a TTL took rows of an hour that was never summed up, the answer states from when on it is complete."""
    now = present(store)
    prune({"llm_call_telemetry": 30}, store=store, now=now)
    late = now - timedelta(days=31)
    Writer(store).write(rows_of([llm_call(late), llm_call(now - timedelta(days=2))]))
    aggregate_summaries("daily", None, store=store)
    found = get_stats(timedelta(days=60), store=store, now=now)
    assert found.requests == 1
    assert found.incomplete_before == late.replace(minute=0) + timedelta(hours=1)


def test_a_store_of_the_first_version_is_upgraded_with_its_data(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first version's tables answer and are pruned before the upgrade; after it, sums of their old rows answer."""
    monkeypatch.setattr(clickhouse_sums, "SETTLE", timedelta(0))
    store = Store(new_clickhouse())
    try:
        with store.writing() as connection:
            for statement in FIRST.read_text().split(";\n"):
                if statement.strip():
                    connection.execute(text(statement))
        Writer(store).write(rows_of(some_calls()))
        before = told(store)
        assert before["requests"] == 7
        assert "llm_written_hours: the table is missing" in differences(store)
        with pytest.raises(StoreVersionError, match="db upgrade"):
            aggregate_summaries("daily", None, store=store)
        forget_causes()
        Maintenance(store, 60.0, {"agent_runs": 30, "llm_call_telemetry": 10_000}).once()
        assert "keeps no summaries yet" in caplog.text
        with store.reading() as connection:
            assert lifetime_of(connection, "agent_runs") == timedelta(days=30)
            assert lifetime_of(connection, "llm_call_telemetry") == timedelta(days=10_000)
        for _ in range(2):
            upgrade(store)
        assert differences(store) == []
        assert told(store) == before
        assert aggregate_summaries("daily", None, store=store) == 3 + 2
        forget_rows(store)
        assert told(store) == before
    finally:
        store.close()
