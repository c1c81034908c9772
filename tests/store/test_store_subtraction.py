"""Erased calls are taken out of the sums: what is left is what summing up again makes, and answers stay fast."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from _stored import NOON, after_erasure, clear, llm_call
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import LargeBinary, delete, func, select, text

from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs._telemetry.sketch import decode
from taskpilot_obs.records import Invocation, Source, Status, Usage
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, aggregate_summaries, erase, rebuild_summaries
from taskpilot_obs.store.aggregate import _claim
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.summary_lines import COLUMNS, Sums
from taskpilot_obs.store.tables import SUMMARIES, SUMMARY_WORK
from taskpilot_obs.store.writer import Writer

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ALL = (NOON - 30 * DAY, NOON + DAY)

calls = st.builds(
    llm_call,
    st.integers(0, 60).map(lambda hours: NOON - hours * HOUR),
    user=st.sampled_from(["ann", "bob"]),
    tenant=st.sampled_from(["acme", "umbrella", None]),
    agent=st.sampled_from(["planner", None]),
    response_model=st.sampled_from(["m-1", "m-2"]),
    duration_s=st.floats(0.001, 60.0),
    ttft_s=st.none() | st.floats(0.001, 10.0),
    cost=st.none() | st.decimals(0, 1000, places=12),
    refused=st.booleans(),
    price_gap=st.sampled_from([None, "a price is missing"]),
    usage=st.sampled_from([Usage(), Usage(1_000, 200, 100, 10, 7, None, None, 50, None)]),
    cached=st.sampled_from([None, True, False]),
    status=st.sampled_from(list(Status)),
    error_category=st.sampled_from(["rate_limit", "timeout", None]),
    error_type=st.sampled_from(["openai.RateLimitError", None]),
)


def sums(store: Store) -> dict[tuple[Any, ...], Sums]:
    """Every line of the summaries, by its key; durations to a microsecond."""
    keys = [column.name for column in SUMMARIES.primary_key]
    columns: list[Any] = [SUMMARIES.c[name] for name in COLUMNS]
    if store.is_clickhouse:  # whose driver reads bytes as text
        columns = [func.hex(column) if isinstance(column.type, LargeBinary) else column for column in columns]
    with store.reading() as connection:
        lines = connection.execute(select(*columns)).all()
    found = {tuple(line[: len(keys)]): held_by(dict(zip(COLUMNS, line, strict=True))) for line in lines}
    return {
        key: held._replace(counts=held.counts._replace(latency_total_ms=round(held.counts.latency_total_ms, 3)))
        for key, held in found.items()
    }


def held_by(line: dict[str, Any]) -> Sums:
    """What a line holds."""
    held = (line[name] or b"" for name in ("latency_sketch", "ttft_sketch"))
    latency, first_token = (decode([bytes.fromhex(each) if isinstance(each, str) else each]) for each in held)
    return Sums(
        Counts(*(line[name] for name in Counts._fields)),
        latency,
        first_token,
        Counter(json.loads(line["errors"] or "{}")),
    )


def marked(store: Store) -> int:
    """How many hours and days have to be summed up."""
    with store.reading() as connection:
        waiting = select(func.count()).select_from(SUMMARY_WORK).where(SUMMARY_WORK.c.lacking.is_(None))
        return int(connection.execute(waiting).scalar_one())


def write(store: Store, made: Sequence[Invocation], service: str = "billing") -> None:
    Writer(store).write(rows_of(made, Source(service)))


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(made=st.lists(calls, min_size=1, max_size=25), of=st.sampled_from([{"user": "ann"}, {"tenant": "acme"}]))
def test_what_is_left_is_what_summing_up_again_makes(store: Store, made: list[Invocation], of: dict[str, str]) -> None:
    """Counts, tokens, costs, sketches and errors of every roll-up, hour and day; and no hour waits to be summed up."""
    clear(store)
    write(store, made)
    aggregate_summaries("daily", None, store=store)
    erase(**of, store=store)  # type: ignore[arg-type]  # a user or a tenant
    whose = [(call.user, call.tenant) for call in made]
    assert get_stats(ALL, store=store).requests == sum(not {*of.values()} & {*names} for names in whose)
    with after_erasure(store):
        assert marked(store) == 0
        left = sums(store)
        rebuild_summaries(store=store)
        assert left == sums(store)


def test_columns_are_in_the_order_of_counts() -> None:
    """A line is made and changed by position."""
    keys = tuple(column.name for column in SUMMARIES.primary_key)
    assert (*keys, *Counts._fields, "latency_sketch", "ttft_sketch", "errors") == COLUMNS


def test_an_hour_that_was_written_to_stays_marked(store: Store) -> None:
    """Its sums are not those of its calls, so nothing is taken out of them, nor of its day."""
    write(store, [llm_call(NOON, user="ann"), llm_call(NOON - DAY, user="ann"), llm_call(NOON, user="bob")])
    aggregate_summaries("daily", None, store=store)
    write(store, [llm_call(NOON, user="bob")])
    before = {key: held for key, held in sums(store).items() if key[1] >= NOON}
    erase(user="ann", store=store)
    assert {key: held for key, held in sums(store).items() if key[1] >= NOON} == before
    assert marked(store) == (4 if store.is_clickhouse else 2)  # there, the day before waits as well
    for _ in range(2):
        assert get_stats(ALL, store=store).requests == 2
        aggregate_summaries("daily", None, store=store)
    with after_erasure(store):
        assert marked(store) == 0
        assert get_stats(ALL, store=store).requests == 2


@pytest.mark.parametrize("period", ["hourly", "daily"])
def test_what_is_being_summed_up_is_summed_up_again(store: Store, period: Any) -> None:
    """A process that claimed the hour or the day may have seen the calls before they were erased."""
    write(store, [llm_call(NOON, user=user) for user in ("ann", "bob")])
    aggregate_summaries("daily", None, store=store)
    start = NOON if period == "hourly" else NOON.replace(hour=0)
    assert _claim(store, period, start) is not None
    erase(user="ann", store=store)
    assert marked(store) >= 2
    assert get_stats(ALL, store=store).requests == 1
    aggregate_summaries("daily", None, store=store)
    assert get_stats(ALL, store=store).requests == 1
    assert marked(store) == 0


def test_sums_that_do_not_hold_the_calls_are_summed_up_again(store: Store) -> None:
    """A line that was deleted or changed by hand is not made worse: two hours and their day are marked."""
    write(store, [llm_call(NOON - hours * HOUR, user=user) for hours in range(3) for user in ("ann", "bob")])
    aggregate_summaries("daily", None, store=store)
    with store.writing() as connection:
        summary = SUMMARIES.c
        connection.execute(delete(SUMMARIES).where(summary.period == "hourly.series", summary.period_start == NOON))
        if store.is_clickhouse:
            connection.execute(text("ALTER TABLE llm_usage_summaries UPDATE cost_nano = 0 WHERE period = 'hourly'"))
        else:
            lower = SUMMARIES.update().where(summary.period == "hourly", summary.period_start == NOON - HOUR)
            connection.execute(lower.values(cost_nano=0))
    erase(user="ann", store=store)
    assert marked(store) == (4 if store.is_clickhouse else 3)  # where all hours of an erased user are
    aggregate_summaries("daily", None, store=store)
    with after_erasure(store):
        assert get_stats(ALL, store=store).requests == 3
        assert get_stats(ALL, store=store).cost_usd == 3 * Decimal("0.0105")


def test_an_erasure_beside_writers_and_summing_up_is_exact(store: Store) -> None:
    """Whatever comes between its transactions, every sum is that of the rows in the end."""
    write(store, [llm_call(NOON - n % 100 * HOUR, user=("ann", "bob")[n % 2]) for n in range(1_200)])
    aggregate_summaries("daily", None, store=store)
    done = threading.Event()
    written: list[int] = []

    def keep_writing() -> None:
        while not done.is_set():
            write(store, [llm_call(NOON - len(written) % 100 * HOUR, user="bob")])
            written.append(1)
            aggregate_summaries("daily", None, store=store)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        assert erase(user="ann", store=store).erased["llm_call_telemetry"] == 600
    finally:
        done.set()
        thread.join()
    assert get_stats(ALL, store=store).requests == 600 + len(written)
    aggregate_summaries("daily", None, store=store)
    with after_erasure(store):
        left = sums(store)
        assert get_stats(ALL, store=store).requests == 600 + len(written)
        rebuild_summaries(store=store)
        assert left == sums(store)
