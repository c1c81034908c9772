"""Sums and durations of calls, read together."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from _stored import NOON, llm_call, verdict
from sqlalchemy.exc import DatabaseError

from taskpilot_obs._telemetry.answers import By
from taskpilot_obs._telemetry.filters import EVERYTHING
from taskpilot_obs.compare import compare
from taskpilot_obs.records import Status
from taskpilot_obs.store import Store, aggregate_summaries
from taskpilot_obs.store.on_sqlite import sorting_in_small_runs
from taskpilot_obs.store.queries import bins, measured, totals
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer


def some_call(chance: Random, number: int) -> Any:
    """A call of three days."""
    return llm_call(
        NOON - timedelta(minutes=chance.randrange(3 * 24 * 60)),
        invocation_id=f"call-{number}",
        canonical_model=chance.choice(["gpt-4o", "gpt-4o-mini"]),
        agent=chance.choice(["writer", "router", None]),
        attributes={"prompt_name": "plan"} if chance.random() < 0.5 else {},
        status=chance.choice([Status.SUCCESS, Status.ERROR, Status.CANCELLED]),
        duration_s=chance.lognormvariate(0, 1),
        ttft_s=chance.choice([None, 0.2]),
    )


@pytest.mark.parametrize("summed_up", [False, True])
@pytest.mark.parametrize("dimensions", [("model_name", "agent"), ("prompt_name", "agent"), ("variant", "agent")])
def test_sums_and_durations_together_are_those_read_apart(
    store: Store, dimensions: tuple[str, ...], summed_up: bool
) -> None:
    """One pass over rows finds what `totals` and `bins` find one after the other, with and without summaries."""
    chance = Random(5)
    Writer(store).write(rows_of([some_call(chance, number) for number in range(300)]))
    if summed_up:
        aggregate_summaries("daily", None, store=store)
    with asked_of(store, NOON - timedelta(days=4), NOON + timedelta(hours=5), EVERYTHING) as question:
        asked = (question.connection, question.plan(dimensions), question.filters, By(dimensions))
        sums, durations = measured(*asked)
        expected, apart = totals(*asked), bins(*asked)
    assert durations == apart
    assert sum(counts.requests for counts in sums.values()) == 300
    assert sums.keys() == expected.keys()
    for key, counts in sums.items():
        assert counts.latency_total_ms == pytest.approx(expected[key].latency_total_ms)
        assert counts._replace(latency_total_ms=0) == expected[key]._replace(latency_total_ms=0)


def test_a_comparison_leaves_the_cache_of_a_connection_as_it_was(tmp_path: Path) -> None:
    """SQLite sorts with a smaller cache than it writes with: the connection has the writer's cache again afterwards."""
    by, day = By(("variant", "agent")), timedelta(days=1)
    with closing(Store(f"sqlite:///{tmp_path / 'telemetry.db'}", create=True)) as store:
        Writer(store).write(rows_of([llm_call(NOON)]))
        with asked_of(store, NOON - day, NOON + day, EVERYTHING) as question:
            before = question.connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
            measured(question.connection, question.plan(by.dimensions), question.filters, by)
            assert question.connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == before


def test_sqlite_sorts_with_a_smaller_cache(tmp_path: Path) -> None:
    """Within the block the cache is smaller, and behind it as before, also where a query fails."""
    with closing(Store(f"sqlite:///{tmp_path / 'telemetry.db'}", create=True)) as store, store.reading() as connection:

        def cache_size() -> int:
            return int(connection.exec_driver_sql("PRAGMA cache_size").scalar_one())

        before = cache_size()
        with sorting_in_small_runs(connection):
            assert 0 < -cache_size() < -before  # negative sizes are KiB
        assert cache_size() == before
        with pytest.raises(DatabaseError), sorting_in_small_runs(connection):
            connection.exec_driver_sql("SELECT * FROM missing")
        assert cache_size() == before


def test_periods_are_compared_by_success_and_by_what_users_confirmed(store: Store) -> None:
    """The asked day comes first and is ranked against the one before; each has the cost of its confirmed answers."""
    days = [NOON, NOON - timedelta(days=1)]
    calls = [
        llm_call(
            day + timedelta(seconds=number),
            invocation_id=f"{day:%d}-{number}",
            request_id=f"{day:%d}-{number}",
            status=Status.ERROR if day != NOON and number % 2 else Status.SUCCESS,
            cost=Decimal("0.01"),
        )
        for day in days
        for number in range(60)
    ]
    rated = [
        verdict(day + timedelta(minutes=5), correct=number < right)._replace(request_id=f"{day:%d}-{number}")
        for day, right in zip(days, (8, 4), strict=True)
        for number in range(10)
    ]
    revised = verdict(NOON + timedelta(minutes=6), correct=False)._replace(request_id=f"{NOON:%d}-0")
    Writer(store).write(rows_of([*calls, *rated]))
    Writer(store).write(rows_of([revised]))
    day = f"{NOON:%Y-%m-%d}"
    asked = {"store": store, "now": NOON + timedelta(days=1)}
    found = compare("period", day, **asked)  # type: ignore[arg-type]  # its options
    now, before = found.groups
    assert (now.name, now.requests, before.requests) == (f"{day} 00:00 to {NOON:%Y-%m}-{NOON.day + 1:02} 00:00", 60, 60)
    assert (now.rank, before.rank) == (1, 2)
    assert (now.rated, now.confirmed_correct, before.confirmed_correct) == (10, 7, 4)
    assert now.cost_per_correct_usd == Decimal("0.1") / 7
    assert before.cost_per_correct_usd == Decimal("0.025")
    same = compare("period", day, against=f"{days[1]:%Y-%m-%d}", **asked)  # type: ignore[arg-type]  # its options
    assert same.groups == found.groups
    (model,) = compare("model", day, **asked).groups  # type: ignore[arg-type]  # its options
    assert model.cost_per_correct_usd == now.cost_per_correct_usd
