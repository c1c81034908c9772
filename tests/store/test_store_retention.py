"""Deleting by age: each answer says from when on it is complete, and no clock blinds a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from _stored import NOON, denial, llm_call, task, verdict
from sqlalchemy import delete, func, select, text, update

from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.golden_signals.from_store import signals_from_store
from taskpilot_obs.records import Status
from taskpilot_obs.stats import (
    get_cost_breakdown,
    get_cost_rate,
    get_cost_summary,
    get_series,
    get_stats,
    get_tenants_report,
    write_report,
)
from taskpilot_obs.stats.asking import Asked
from taskpilot_obs.store import Store, aggregate_summaries, prune, rebuild_summaries, repair
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.tables import LLM_CALLS, STATE, SUMMARIES
from taskpilot_obs.store.writer import Writer

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def fill(store: Store, *records: object) -> None:
    Writer(store).write(rows_of(records))  # type: ignore[arg-type]  # records of any kind


def test_rows_answer_where_summaries_were_deleted_sooner(store: Store) -> None:
    """Summaries that are kept for a shorter time than rows take no call out of any answer."""
    fill(store, *(llm_call(NOON - n * 7 * HOUR) for n in range(40)))
    aggregate_summaries("daily", None, store=store)
    for _ in range(2):
        prune({"llm_usage_summaries": 3, "llm_call_telemetry": 90}, store=store, now=NOON)
        for start in (NOON - 20 * DAY, NOON - 3 * DAY - 5 * HOUR):
            found = get_stats((start, NOON + HOUR), store=store)
            expected = sum(start <= NOON - n * 7 * HOUR for n in range(40))
            assert (found.requests, found.incomplete_before) == (expected, None)
        aggregate_summaries("daily", None, store=store)


def test_every_answer_says_from_when_on_it_is_complete(store: Store, tmp_path: object) -> None:
    """Where neither rows nor summaries are left, all models carry the moment, and no change is made up."""
    fill(store, *(llm_call(NOON - n * DAY, cost=Decimal(1)) for n in range(60)))
    prune({"llm_call_telemetry": 10, "llm_usage_summaries": 10}, store=store, now=NOON)
    since = (NOON - 10 * DAY).replace(hour=0)  # the day's summaries are kept whole
    asked = (NOON - 30 * DAY, NOON + HOUR)
    assert get_stats(asked, store=store).incomplete_before == since
    assert get_cost_breakdown(asked, store=store).incomplete_before == since
    assert get_tenants_report(asked, store=store).incomplete_before == since
    assert get_cost_rate(asked, store=store).incomplete_before == since
    months = get_cost_summary("month", store=store, now=NOON)
    assert months.change_percent is None
    assert months.previous_incomplete_before is not None
    points = get_series(asked, store=store)
    assert [point.incomplete_before is not None for point in points] == [point.start < since for point in points]
    report = write_report(f"{tmp_path}/r.md", asked, store=store)
    assert f"calls before {since:%Y-%m-%d %H:%M} UTC were deleted by age" in report.read_text()
    assert get_stats((since, NOON + HOUR), store=store).incomplete_before is None
    assert get_stats((NOON - 90 * DAY, NOON - 70 * DAY), store=store).incomplete_before is None


def test_signals_divide_what_is_of_one_age(store: Store) -> None:
    """Costs that summaries keep are not divided by the successes that are left."""
    fill(
        store,
        *(f(NOON - n * HOUR) for n in range(60 * 24) for f in (task, lambda at: llm_call(at, cost=Decimal(1)))),
        *(denial(NOON - n * DAY) for n in range(40)),
        *(verdict(NOON - n * DAY) for n in range(40)),
    )
    whole = signals_from_store("60d", store=store, now=NOON + HOUR)
    assert (whole.cost_per_successful_task_usd, whole.incomplete_before) == (1.0, None)
    prune(15, store=store, now=NOON)
    kept = signals_from_store("60d", store=store, now=NOON + HOUR)
    assert kept.cost_per_successful_task_usd == 1.0
    assert kept.policy_violation_rate_percent == pytest.approx(100 * 16 / kept.runs.counted)
    assert kept.incomplete_before == NOON - 15 * DAY
    assert "runs before 2026-02-23 12:00 UTC were deleted by age" in kept.notes
    prune({"llm_call_telemetry": 5, "llm_usage_summaries": 5, "policy_violations": 7}, store=store, now=NOON)
    least = signals_from_store("60d", store=store, now=NOON + HOUR)
    assert least.cost_per_successful_task_usd == 1.0
    assert least.runs.success == kept.runs.success
    ratio = least.evidence["policy_violation_rate_percent"]
    assert (ratio.numerator, ratio.denominator) == (8, 7 * 24 + 1)
    assert any(note.startswith("calls before 2026-03-05 00:00") for note in least.notes)


def test_a_clock_that_is_far_ahead_deletes_nothing(store: Store) -> None:
    """A prune on a host whose clock is a year ahead is refused, and new calls count as before."""
    now = datetime.now(UTC)
    fill(store, *(llm_call(now - n * DAY) for n in range(1, 11)))
    with pytest.raises(StoreError, match="by the clock of this process"):
        prune(30, store=store, now=now + 400 * DAY)
    fill(store, *(llm_call(now - n * HOUR) for n in range(1, 24)))
    assert get_stats("48h", store=store).requests == 23 + 1
    with pytest.raises(ConfigurationError, match="time zone"):
        prune(30, store=store, now=now.replace(tzinfo=None))


def test_a_mark_is_never_beyond_the_newest_row(store: Store) -> None:
    """A clock that is a little ahead deletes old rows, and calls that come later count."""
    fill(store, llm_call(NOON), llm_call(NOON - DAY))
    assert prune(1, store=store, now=NOON + 10 * DAY)["llm_call_telemetry"] == 2
    fill(store, *(llm_call(NOON + n * HOUR) for n in range(1, 5)))
    assert get_stats((NOON - 2 * DAY, NOON + DAY), store=store).requests == 2 + 4
    assert get_stats((NOON - 2 * DAY, NOON + DAY), store=store, user="ann").requests == 4


def test_a_blind_store_is_repaired(store: Store) -> None:
    """A mark in the future, as an older version could set it, is taken back, and rows count again."""
    fill(store, *(llm_call(NOON - n * DAY) for n in range(40)))
    prune(30, store=store, now=NOON)
    with store.writing() as connection:
        connection.execute(update(STATE).where(STATE.c.key.like("pruned_before:%")).values(value=NOON + 400 * DAY))
    fill(store, *(llm_call(NOON + n * HOUR) for n in range(24)))
    assert get_stats((NOON, NOON + DAY), store=store, user="ann").requests == 0
    assert {each.table for each in repair(store=store)} == {"llm_call_telemetry"}
    for _ in range(2):
        assert get_stats((NOON, NOON + DAY), store=store).requests == 25
        assert get_stats((NOON, NOON + DAY), store=store, user="ann").requests == 25
        assert get_stats((NOON - 60 * DAY, NOON + DAY), store=store).requests == 64
        aggregate_summaries("daily", None, store=store)
    assert repair(store=store) == []


def test_a_late_record_is_in_no_sum(store: Store) -> None:
    """A call for a deleted hour is counted neither for its user nor in the whole."""
    fill(store, *(llm_call(NOON - n * DAY) for n in range(40)))
    prune(30, store=store, now=NOON)
    fill(store, *(llm_call(NOON - 35 * DAY, user="late") for _ in range(5)))
    asked = (NOON - 60 * DAY, NOON + HOUR)
    assert get_stats(asked, store=store).requests == 40
    assert get_stats(asked, store=store, user="late").requests == 0
    aggregate_summaries("daily", None, store=store)
    assert get_stats(asked, store=store).requests == 40


def test_summing_up_again_replaces(store: Store) -> None:
    """Lines whose rows were deleted by hand go when their hour is summed up again."""
    fill(store, *(llm_call(NOON - n * HOUR, tenant=("acme", "umbrella")[n % 2]) for n in range(48)))
    aggregate_summaries("daily", None, store=store)
    with store.writing() as connection:
        connection.execute(delete(LLM_CALLS).where(LLM_CALLS.c.organization_id == "acme"))
    asked = (NOON - 5 * DAY, NOON + HOUR)
    assert get_stats(asked, store=store).requests == 48
    assert rebuild_summaries(store=store) > 48
    assert get_stats(asked, store=store).requests == 24
    assert [line.tenant for line in get_tenants_report(asked, store=store).tenants] == ["umbrella"]
    with store.reading() as connection:
        acme = (
            select(func.count())
            .select_from(SUMMARIES)
            .where(SUMMARIES.c.organization_id == "acme", SUMMARIES.c.requests > 0)
        )
        assert connection.execute(acme).scalar_one() == 0


def test_writers_do_not_keep_old_rows_alive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a writer changes an old hour again and again, the hours before it are deleted all the same."""
    fill(store, *(llm_call(NOON - n * DAY) for n in range(31, 61)))
    aggregate_summaries("daily", None, store=store)
    fill(store, llm_call(NOON - 40 * DAY))
    monkeypatch.setattr("taskpilot_obs.store.retention.aggregate_summaries", lambda *_, **__: 0)
    assert prune({"llm_call_telemetry": 30}, store=store, now=NOON) == {"llm_call_telemetry": 20}


def test_a_dry_run_changes_nothing(store: Store) -> None:
    """It counts what would be deleted, in each table by its own age."""
    fill(store, *(llm_call(NOON - n * DAY) for n in range(40)), *(task(NOON - n * DAY) for n in range(40)))
    ages = {"llm_call_telemetry": 30, "agent_runs": 10}
    assert prune(ages, store=store, now=NOON, dry_run=True) == {"llm_call_telemetry": 9, "agent_runs": 29}
    assert get_stats((NOON - 60 * DAY, NOON + HOUR), store=store, user="ann").requests == 40
    assert prune(ages, store=store, now=NOON) == {"llm_call_telemetry": 9, "agent_runs": 29}


def test_ended_lines_of_the_ledger_go(store: Store) -> None:
    """Days and months of budgets are deleted once they ended long enough ago; budgets without period stay."""
    lines = [("day", 40), ("day", 1), ("month", 40), ("month", 120), ("total", 400), ("week", 60)]
    zeros = dict.fromkeys(
        ("spent_units", "spent_rest", "reserved_units", "reserved_rest", "refusals", "alerted_permille"), 0
    )
    with store.writing() as connection:
        for number, (period, days) in enumerate(lines):
            start = NOON - days * DAY
            line = {"budget": f"b{number}", "scope_key": "", "period_start": start, "period": period, "unit": "usd"}
            connection.execute(BUDGET_LEDGER.insert().values(**line, **zeros, updated_at=start))
    assert prune({"budget_ledger": 30}, store=store, now=NOON) == {"budget_ledger": 3}
    with store.reading() as connection:
        assert set(connection.execute(select(BUDGET_LEDGER.c.budget)).scalars()) == {"b1", "b2", "b4"}


def test_a_request_counts_by_its_latest_rating(store: Store, url: str) -> None:
    """Ratings that two processes took of one request are one rating."""
    from taskpilot_obs.records import Feedback, Origin

    first, second = Writer(store), Writer(store)
    fill(store, task(NOON))
    for writer, correct, minute in ((first, True, 1), (second, False, 2), (second, False, 3), (first, True, 0)):
        at = int((NOON + timedelta(minutes=minute)).timestamp() * 1e9)
        writer.write(rows_of([Feedback("request-x", correct, False, Origin(tenant="acme"), at)]))
    found = signals_from_store("1h", store=store, now=NOON + HOUR / 2)
    ratio = found.evidence["user_confirmed_correctness_percent"]
    assert (found.user_confirmed_correctness_percent, ratio.denominator) == (0.0, 1)


@pytest.mark.parametrize("days", [float("inf"), float("nan"), 1e12, 0, -1])
def test_an_age_that_is_none_is_refused(store: Store, days: float) -> None:
    """Not a number of days, or more than a calendar holds: an error, before anything is deleted."""
    with pytest.raises(ConfigurationError, match="retention_days"):
        prune(days, store=store)
    with pytest.raises(ConfigurationError):
        aggregate_summaries("hourly", -1.0 if days > 0 else days, store=store)


def test_roll_ups_that_are_not_smaller_are_not_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each call has a tenant of its own, the full roll-up is left out, and every answer is the same."""
    monkeypatch.setattr("taskpilot_obs.store.rollups._FIRST_LINES", 5)
    calls = [
        llm_call(NOON - n % 30 * HOUR, tenant=f"t{n}", status=Status.ERROR if n % 7 == 0 else Status.SUCCESS)
        for n in range(600)
    ]
    fill(store, *calls)
    asked = (NOON - 5 * DAY, NOON + HOUR)
    questions: tuple[Asked, ...] = (
        {},
        {"tenant": "t7"},
        {"model": "gpt-4o"},
        {"tenant": "t7", "agent": "planner"},
    )
    before = [get_stats(asked, store=store, **each) for each in questions]
    aggregate_summaries("daily", None, store=store)
    with store.reading() as connection:
        periods = set(connection.execute(select(SUMMARIES.c.period).distinct()).scalars())
    assert periods == {"hourly.series", "daily.series"}
    after = [get_stats(asked, store=store, **each) for each in questions]
    for one, other in zip(before, after, strict=True):
        assert (one.requests, one.cost_usd, one.errors_by_type) == (
            other.requests,
            other.cost_usd,
            other.errors_by_type,
        )
    prune({"llm_call_telemetry": 1}, store=store, now=NOON)
    assert get_stats(asked, store=store).incomplete_before is None
    assert get_stats(asked, store=store).requests == 600
    lacks = get_stats(asked, store=store, tenant="t7")
    assert lacks.incomplete_before == NOON - DAY
    with store.writing() as connection:
        assert connection.execute(text("SELECT count(*) FROM llm_summary_work WHERE lacking IS NULL")).scalar_one() == 0
