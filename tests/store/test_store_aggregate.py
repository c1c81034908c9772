"""Aggregation and pruning do not change answers, whichever process does it and whenever."""

from __future__ import annotations

import random
import threading
import time
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from _stored import NOON, clear, llm_call, run_processes, task, unix_ns
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, text

from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.stats import Stats, get_stats, get_tenant_stats, get_tenants_report
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, prune
from taskpilot_obs.store.adding_up import hour_from_rows
from taskpilot_obs.store.aggregate import _claim, _replaced, _Replacement
from taskpilot_obs.store.background import Maintenance
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.segments import Segment
from taskpilot_obs.store.summary_lines import line_of, put
from taskpilot_obs.store.tables import LLM_CALLS, SUMMARIES, SUMMARY_WORK
from taskpilot_obs.store.writer import Writer

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIDNIGHT = NOON.replace(hour=0)

moments = st.datetimes((MIDNIGHT - 2 * DAY).replace(tzinfo=None), (MIDNIGHT + 2 * DAY).replace(tzinfo=None)).map(
    lambda moment: moment.replace(tzinfo=NOON.tzinfo)
)
calls = st.builds(
    llm_call,
    moments,
    duration_s=st.floats(0.001, 60.0),
    ttft_s=st.none() | st.floats(0.001, 10.0),
    cost=st.none() | st.decimals(0, 1000, places=12),
    cached=st.sampled_from([None, None, True, False]),
    status=st.sampled_from(list(Status)),
    error_category=st.sampled_from(["rate_limit", "timeout", None]),
    error_type=st.sampled_from(["openai.RateLimitError", None]),
    tenant=st.sampled_from(["acme", "umbrella", None]),
    provider=st.sampled_from(["openai", "anthropic", None]),
    response_model=st.sampled_from(["m-1", "m-2"]),
    agent=st.sampled_from(["planner", None]),
    attributes=st.sampled_from([{"prompt_name": "plan"}, {}]),
)


def answers(store: Store, start: datetime, end: datetime, *, roughly: bool = False) -> list[dict[str, object]]:
    """What is said about a stretch of time, overall and narrowed down.

    Roughly: means compare equal to what differs by the rounding of floats, because they are added in another order.
    """
    asked: list[dict[str, str]] = [
        {},
        {"tenant": "acme"},
        {"model": "m-1", "agent": "planner"},
        {"prompt_name": "plan"},
    ]
    found = [get_stats((start, end), store=store, **one) for one in asked]  # type: ignore[arg-type]  # names are right
    return [_roughly(answer) if roughly else answer.model_dump() for answer in found]


def _roughly(found: Stats) -> dict[str, object]:
    dumped = found.model_dump()
    for part in (dumped, *(group for by in ("provider", "model", "agent") for group in dumped[f"by_{by}"].values())):
        mean = part["latency"]["mean_ms"]
        part["latency"]["mean_ms"] = None if mean is None else pytest.approx(mean, rel=1e-12)
    return dumped


@pytest.mark.promise("summaries-agree")
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    batches=st.lists(st.lists(calls, min_size=1, max_size=25), min_size=1, max_size=4),
    steps=st.lists(st.sampled_from(["hourly", "daily", None]), min_size=4, max_size=4),
    edges=st.tuples(moments, moments).filter(lambda pair: pair[0] != pair[1]),
)
def test_rows_and_summaries_give_the_same_answers(
    store: Store,
    batches: list[list[Invocation]],
    steps: list[str | None],
    edges: tuple[datetime, datetime],
) -> None:
    """However writing and summing up take turns, every answer is the one that the rows alone give."""
    clear(store)
    writer = Writer(store)
    for batch, step in zip(batches, steps, strict=False):
        writer.write(rows_of(batch))
        if step is not None:
            aggregate_summaries(step, None, store=store)  # type: ignore[arg-type]  # one of the two
    summed = answers(store, min(edges), max(edges), roughly=True)
    whole = answers(store, MIDNIGHT - 5 * DAY, MIDNIGHT + 5 * DAY, roughly=True)
    _only_rows(store)
    assert summed == answers(store, min(edges), max(edges))
    assert whole == answers(store, MIDNIGHT - 5 * DAY, MIDNIGHT + 5 * DAY)


def _only_rows(store: Store) -> None:
    with store.writing() as connection:
        if store.is_clickhouse:
            for table in ("llm_usage_summaries", "llm_summed_periods"):
                connection.execute(text(f"TRUNCATE TABLE {table}"))
            return
        connection.execute(delete(SUMMARIES))
        connection.execute(delete(SUMMARY_WORK))
        hours = [MIDNIGHT + hour * HOUR for hour in range(-24 * 3, 24 * 3)]
        to_do = [{"period": "hourly", "period_start": hour, "claimed": False} for hour in hours]
        connection.execute(SUMMARY_WORK.insert(), to_do)


def test_summing_up_twice_changes_nothing(store: Store) -> None:
    """Only what changed is summed up, and the result of another round is the same."""
    Writer(store).write(rows_of([llm_call(MIDNIGHT + n * HOUR) for n in range(5)]))
    assert aggregate_summaries("daily", None, store=store) == 5 + 1
    lines = text("SELECT * FROM llm_usage_summaries ORDER BY period, period_start")
    with store.reading() as connection:
        before = connection.execute(lines).all()
    assert aggregate_summaries("daily", None, store=store) == 0
    with store.reading() as connection:
        assert connection.execute(lines).all() == before


def test_a_late_call_is_counted(store: Store) -> None:
    """A call that arrives for an hour that was summed up is in the next answer, before and after another round."""
    writer = Writer(store)
    writer.write(rows_of([llm_call()]))
    aggregate_summaries("daily", None, store=store)
    writer.write(rows_of([llm_call()]))
    asked = (MIDNIGHT, MIDNIGHT + DAY)
    assert get_stats(asked, store=store).requests == 2
    assert aggregate_summaries("daily", None, store=store) == 2
    assert get_stats(asked, store=store).requests == 2


def test_every_hour_of_a_batch_is_marked_once(store: Store) -> None:
    """A batch marks the hours of its calls; those that wait to be summed up already are not marked again."""
    writer = Writer(store)
    writer.write(rows_of([llm_call(MIDNIGHT + 2 * HOUR)]))
    for _ in range(2):
        writer.write(rows_of([llm_call(MIDNIGHT + n * HOUR) for n in (3, 1, 2, 1)]))
    with store.reading() as connection:
        marked = connection.execute(select(SUMMARY_WORK.c.period_start)).scalars().all()
    assert sorted(marked) == [MIDNIGHT + n * HOUR for n in (1, 2, 3)]


def _planned(store: Store, start: datetime, end: datetime) -> tuple[Segment, ...]:
    with asked_of(store, start, end) as question:
        return question.plan().segments


def test_an_answer_comes_from_days_and_hours_where_it_can(store: Store) -> None:
    """A month that was summed up is read from days, its ends from hours and rows."""
    Writer(store).write(rows_of([llm_call(MIDNIGHT + n * HOUR) for n in range(24 * 4)]))
    aggregate_summaries("daily", None, store=store)
    start = MIDNIGHT + timedelta(hours=5, minutes=30)
    segments = _planned(store, start, start + 3 * DAY)
    assert [segment.source for segment in segments] == ["rows", "hourly", "daily", "hourly", "rows"]
    assert segments[2] == Segment("daily", MIDNIGHT + DAY, MIDNIGHT + 3 * DAY)


def test_many_changed_hours_are_read_at_once(store: Store) -> None:
    """Where changed and unchanged hours alternate too often, the hours between are read from rows too."""
    Writer(store).write(rows_of([llm_call(MIDNIGHT + 2 * n * HOUR) for n in range(100)]))
    last = MIDNIGHT + 199 * HOUR
    segments = _planned(store, MIDNIGHT, MIDNIGHT + 9 * DAY)
    assert segments == (Segment("rows", MIDNIGHT, last), Segment("hourly", last, MIDNIGHT + 9 * DAY))


def test_only_as_far_back_as_is_asked(store: Store) -> None:
    """`lookback_hours` leaves older hours for another time; they are still answered from rows."""
    Writer(store).write(rows_of([llm_call(NOON - 30 * HOUR), llm_call(NOON - 2 * HOUR)]))
    assert aggregate_summaries(lookback_hours=24, store=store, now=NOON) == 1
    assert get_stats((NOON - 2 * DAY, NOON), store=store).requests == 2
    assert aggregate_summaries("daily", 48, store=store, now=NOON) == 1 + 2


@pytest.mark.parametrize(("period", "lookback"), [("weekly", 24), ("hourly", 0), ("daily", -1)])
def test_a_wrong_argument_is_refused(store: Store, period: str, lookback: float) -> None:
    """Another period, or a lookback that is not positive, is an error."""
    with pytest.raises(ConfigurationError):
        aggregate_summaries(period, lookback, store=store)  # type: ignore[arg-type]  # wrong on purpose


def test_an_older_sum_never_replaces_a_newer_one(store: Store) -> None:
    """A process that was slow, and whose claim another took over, does not put its old sum in place."""
    writer = Writer(store)
    writer.write(rows_of([llm_call()]))
    claim = _claim(store, "hourly", NOON)
    assert claim is not None
    with store.reading() as connection:
        old = hour_from_rows(connection, NOON)
    writer.write(rows_of([llm_call()]))
    aggregate_summaries("daily", None, store=store)
    lines = [line_of(key, sums) for key, sums in old.lines.items()]
    assert not _replaced(store, _Replacement(claim, "hourly", NOON, 0), lines, [])
    assert {sums.counts.requests for sums in old.lines.values()} == {1}
    assert get_stats((MIDNIGHT, MIDNIGHT + DAY), store=store).requests == 2


def test_a_process_that_died_in_the_middle_leaves_work_for_the_next(store: Store) -> None:
    """A claim without a result keeps the hour marked, so it is read from rows and summed up by the next."""
    Writer(store).write(rows_of([llm_call()]))
    assert _claim(store, "hourly", NOON) is not None
    assert get_stats((MIDNIGHT, MIDNIGHT + DAY), store=store).requests == 1
    assert aggregate_summaries(lookback_hours=None, store=store) == 1


@pytest.fixture
def full_hour(store: Store) -> Store:
    """A store with an hour that sums up to more lines than one transaction puts in place."""
    Writer(store).write(rows_of([llm_call(tenant=f"tenant-{number}") for number in range(1_000)]))
    return store


def test_many_lines_are_put_in_place_in_many_small_transactions(
    full_hour: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers come between them, and have more time than they; no answer is made of a half of the lines."""
    writer, pauses = Writer(full_hour), list[float]()

    def write(pause: float) -> None:
        pauses.append(pause)
        writer.write(rows_of([llm_call(NOON + HOUR)]))
        assert get_stats((MIDNIGHT, MIDNIGHT + DAY), store=full_hour).requests == 1_000 + len(pauses)

    monkeypatch.setattr(time, "sleep", write)
    assert aggregate_summaries("daily", None, store=full_hour) >= 2
    assert len(pauses) >= 3
    assert all(pause > 0 for pause in pauses)
    monkeypatch.undo()
    aggregate_summaries("daily", None, store=full_hour)
    assert get_stats((MIDNIGHT, MIDNIGHT + DAY), store=full_hour).requests == 1_000 + len(pauses)
    with full_hour.reading() as connection:
        assert connection.execute(select(func.count()).select_from(SUMMARY_WORK)).scalar_one() == 0


def test_who_is_overtaken_between_two_transactions_stops(full_hour: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that claims the hour meanwhile, and has seen more, is the one whose sum stays."""
    pauses: list[float] = []

    def overtake(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 1:
            Writer(full_hour).write(rows_of([llm_call(tenant="tenant-7"), llm_call(tenant="tenant-new")]))
            assert aggregate_summaries(lookback_hours=None, store=full_hour) == 1

    monkeypatch.setattr(time, "sleep", overtake)
    assert aggregate_summaries(lookback_hours=None, store=full_hour) == 0
    monkeypatch.undo()
    assert get_stats((NOON, NOON + HOUR), store=full_hour).requests == 1_002
    with full_hour.reading() as connection:
        full = select(func.sum(SUMMARIES.c.requests)).where(SUMMARIES.c.period == "hourly")
        assert connection.execute(full).scalar_one() == 1_002
        marks = select(func.count()).select_from(SUMMARY_WORK).where(SUMMARY_WORK.c.period == "hourly")
        assert connection.execute(marks).scalar_one() == 0


def test_who_dies_between_two_transactions_leaves_work_for_the_next(
    full_hour: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour is read from its rows until somebody has summed it up to the end."""

    def die(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", die)
    with pytest.raises(KeyboardInterrupt):
        aggregate_summaries("daily", None, store=full_hour)
    monkeypatch.undo()
    with full_hour.reading() as connection:
        full = select(func.sum(SUMMARIES.c.requests)).where(SUMMARIES.c.period == "hourly")
        assert 0 < connection.execute(full).scalar_one() < 1_000
    assert get_stats((NOON, NOON + HOUR), store=full_hour).requests == 1_000
    assert aggregate_summaries("daily", None, store=full_hour) == 2
    assert get_stats((MIDNIGHT, MIDNIGHT + DAY), store=full_hour).requests == 1_000


def test_nothing_to_put_is_no_statement(store: Store) -> None:
    """An hour whose calls are gone has no lines."""
    with store.writing() as connection:
        put(connection, [])
    assert get_stats((MIDNIGHT, MIDNIGHT + DAY), store=store).requests == 0


def _write_and_sum(url: str, worker: int) -> None:
    random.seed(worker)
    exporter = StoreExporter(url)
    for turn in range(40):
        when = MIDNIGHT + random.randrange(30) * HOUR
        exporter.export([llm_call(when, invocation_id=f"{worker}-{turn}-{n}", cost=Decimal("0.1")) for n in range(10)])
        if turn % 4 == worker % 4:
            aggregate_summaries("daily", None, store=exporter.store)
    exporter.shutdown(30.0)


def test_writers_and_sums_of_several_processes_agree(store: Store, url: str) -> None:
    """Four processes write and sum up the same hours at once: summaries and rows hold exactly the same, in the end."""
    assert run_processes(_write_and_sum, *((url, worker) for worker in range(4))) == [0] * 4
    aggregate_summaries("daily", None, store=store)
    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(SUMMARY_WORK)).scalar_one() == 0
        for period in ("hourly", "daily"):
            line = connection.execute(
                select(func.sum(SUMMARIES.c.requests), func.sum(SUMMARIES.c.cost_nano)).where(
                    SUMMARIES.c.period == period
                )
            ).one()
            assert tuple(line) == (1_600, 1_600 * 100_000_000)
    assert get_stats((MIDNIGHT, MIDNIGHT + 2 * DAY), store=store).cost_usd == 160


# Pruning


def test_a_day_tells_what_its_hours_are_too_short_for(store: Store) -> None:
    """With thousands of tenants of a call an hour the day alone has lines of tenants, and they outlive the rows."""
    tenants, hours = 2_100, 3
    for hour in range(hours):
        calls = [llm_call(MIDNIGHT + hour * HOUR, tenant=f"t{n}", cost=Decimal(n)) for n in range(tenants)]
        Writer(store).write(rows_of(calls))
    Writer(store).write(rows_of([llm_call(MIDNIGHT + 2 * DAY)]))
    day = (MIDNIGHT, MIDNIGHT + DAY)
    before = get_tenants_report(day, store=store)
    aggregate_summaries("daily", None, store=store)
    with store.reading() as connection:
        stored = select(SUMMARIES.c.period).where(SUMMARIES.c.period_start < MIDNIGHT + DAY)
        periods = set(connection.execute(stored).scalars())
    assert periods == {"hourly.series", "daily", "daily.series", "daily.tenants"}
    for _ in range(2):
        found = get_tenants_report(day, store=store)
        assert (found.tenants, found.incomplete_before) == (before.tenants, None)
        assert get_tenant_stats("t7", day, store=store).cost_usd == 7 * hours
        half = get_tenants_report((MIDNIGHT, MIDNIGHT + 2 * HOUR), store=store)
        prune({"llm_call_telemetry": 1}, store=store, now=MIDNIGHT + 3 * DAY)
    assert half.incomplete_before is not None
    Writer(store).write(rows_of([llm_call(MIDNIGHT + DAY)]))
    aggregate_summaries("daily", None, store=store)
    assert get_tenants_report(day, store=store).tenants == before.tenants


def test_summaries_outlive_rows(store: Store) -> None:
    """Old rows go, are summed up before, and answers about their time stay what they were."""
    Writer(store).write(rows_of([llm_call(NOON - 40 * DAY + n * HOUR) for n in range(30)] + [llm_call(), task()]))
    asked = (NOON - 60 * DAY, NOON + HOUR)
    before = get_stats(asked, store=store)
    assert prune(30, store=store, now=NOON)["llm_call_telemetry"] == 30
    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(LLM_CALLS)).scalar_one() == 1
    after = get_stats(asked, store=store)
    assert after.model_copy(update={"latency": before.latency}) == before
    assert after.latency.p95_ms == before.latency.p95_ms


def test_what_cannot_be_told_any_more_is_said(store: Store) -> None:
    """After pruning, a question about a user says up to when its answer is incomplete."""
    Writer(store).write(rows_of([llm_call(NOON - 40 * DAY), llm_call()]))
    prune({"llm_call_telemetry": 30}, store=store, now=NOON)
    asked = (NOON - 60 * DAY, NOON + HOUR)
    assert get_stats(asked, store=store).incomplete_before is None
    told = get_stats(asked, store=store, user_id="ann")
    assert (told.requests, told.incomplete_before) == (1, NOON - 30 * DAY)
    torn = get_stats((NOON - 40 * DAY + HOUR / 2, NOON), store=store)
    assert torn.incomplete_before == NOON - 40 * DAY + HOUR


def test_a_call_that_comes_too_late_is_not_counted(store: Store) -> None:
    """A row for an hour that was pruned does not touch its summary, and goes with the next round."""
    writer = Writer(store)
    writer.write(rows_of([llm_call(NOON - 40 * DAY)]))
    aggregate_summaries("daily", None, store=store)
    prune(30, store=store, now=NOON)
    writer.write(rows_of([llm_call(NOON - 40 * DAY)]))
    asked = (NOON - 60 * DAY, NOON)
    assert get_stats(asked, store=store).requests == 1
    assert aggregate_summaries("daily", None, store=store) == 0
    assert get_stats(asked, store=store).requests == 1
    assert prune(30, store=store, now=NOON)["llm_call_telemetry"] == 1


def test_many_changed_hours_beside_pruned_ones_are_answered(store: Store) -> None:
    """Where there are too many pieces, what was pruned still comes from summaries."""
    writer = Writer(store)
    writer.write(rows_of([llm_call(NOON - 40 * DAY)]))
    prune(30, store=store, now=NOON)
    writer.write(rows_of([llm_call(NOON - 2 * n * HOUR) for n in range(100)]))
    assert get_stats((NOON - 60 * DAY, NOON + HOUR), store=store).requests == 101


def test_a_long_time_that_is_all_pruned_is_answered_from_hours(store: Store) -> None:
    """Where too many days were never summed up and no row is left, the hours tell."""
    writer = Writer(store)
    writer.write(rows_of([llm_call(NOON - 2 * n * DAY) for n in range(100)]))
    prune(0.5, store=store, now=NOON + 2 * DAY)
    segments = _planned(store, NOON - 300 * DAY, NOON + DAY)
    assert {segment.source for segment in segments if segment.start < NOON} == {"hourly", "daily"}
    assert get_stats((NOON - 300 * DAY, NOON + DAY), store=store).requests == 100


def test_each_table_has_an_age_of_its_own(store: Store) -> None:
    """Tables that are not named are kept; summaries go only when they are named."""
    Writer(store).write(rows_of([llm_call(NOON - 40 * DAY), task(NOON - 40 * DAY)]))
    assert prune({"agent_runs": 7}, store=store, now=NOON) == {"agent_runs": 1}
    assert prune({"llm_call_telemetry": 7, "llm_usage_summaries": 7}, store=store, now=NOON) == {
        "llm_call_telemetry": 1,
        "llm_usage_summaries": 6,  # of an hour and of a day: the full roll-up, tenants and series
    }


def test_a_table_is_not_pruned_while_its_hours_change(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a writer comes between summing up and deleting, the rows wait for the next round."""
    writer = Writer(store)
    writer.write(rows_of([llm_call(NOON - 40 * DAY)]))
    monkeypatch.setattr("taskpilot_obs.store.retention.aggregate_summaries", lambda *_, **__: 0)
    assert prune({"llm_call_telemetry": 30}, store=store, now=NOON) == {"llm_call_telemetry": 0}
    monkeypatch.undo()
    assert prune({"llm_call_telemetry": 30}, store=store, now=NOON) == {"llm_call_telemetry": 1}


def test_many_rows_go_in_many_small_transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No deletion takes more rows than its time allows, and writers get as much time as deletions."""
    Writer(store).write(rows_of([llm_call(NOON - 40 * DAY) for _ in range(2_500)]))
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert prune({"llm_call_telemetry": 30}, store=store, now=NOON) == {"llm_call_telemetry": 2_500}
    assert len(pauses) >= 1
    assert all(pause > 0 for pause in pauses)


# In the background


def test_an_exporter_sums_up_and_prunes_by_itself(url: str, store: Store) -> None:
    """With an interval, the process that writes also sums up and prunes; its thread ends with it."""
    exporter = StoreExporter(url, aggregate_every_s=1.0, retention_days=30)
    exporter.export([llm_call(NOON - 400 * DAY)])
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        with store.reading() as connection:
            if connection.execute(select(func.count()).select_from(LLM_CALLS)).scalar_one() == 0:
                break
        time.sleep(0.05)
    exporter.shutdown(5.0)
    assert get_stats((NOON - 401 * DAY, NOON), store=store).requests == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "taskpilot_obs-maintenance"]


def test_a_round_that_fails_is_logged_and_tried_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A database that fails does not end the thread."""
    maintenance = Maintenance(store, 1.0, None)
    rounds: list[None] = []

    def fail() -> None:
        rounds.append(None)
        raise StoreError

    maintenance.once = fail  # type: ignore[method-assign]  # a database that fails on every round
    maintenance.start()
    deadline = time.monotonic() + 30.0
    while len(rounds) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    maintenance.stop(5.0)
    assert len(rounds) >= 2
    assert "store maintenance failed with StoreError" in caplog.text


def test_without_an_interval_there_is_no_thread(store: Store) -> None:
    """Nothing runs in the background that was not asked for."""
    maintenance = Maintenance(store, None, None)
    maintenance.start()
    maintenance.stop(0.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "taskpilot_obs-maintenance"]


def test_times_are_utc(store: Store) -> None:
    """What the database gives back is in UTC, whatever the zone of server and process."""
    Writer(store).write(rows_of([llm_call()]))
    with store.reading() as connection:
        if not store.is_sqlite:
            connection.execute(text("SET LOCAL TIME ZONE 'Asia/Kolkata'"))
        moment = connection.execute(select(LLM_CALLS.c.created_at)).scalar_one()
    assert moment.utcoffset() == timedelta(0)
    assert unix_ns(moment) == unix_ns(NOON)
