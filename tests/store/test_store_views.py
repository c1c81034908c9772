"""Views with types that people, BI tools and notebooks know."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from _stored import NOON, llm_call
from sqlalchemy import text

from taskpilot_obs.records import Status
from taskpilot_obs.store import Store, downgrade, upgrade
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

VIEWS = ("v_llm_calls", "v_daily_costs", "v_daily_latency")


def ask(store: Store, query: str) -> list[dict[str, Any]]:
    """The lines of a query as somebody else's program reads them."""
    with store.reading() as connection:
        return [dict(line) for line in connection.execute(text(query)).mappings()]


def test_calls_are_readable(store: Store) -> None:
    """The end of a call is a time in UTC, its cost an amount of USD, and unknown values are NULL."""
    Writer(store).write(rows_of([llm_call(attributes={}), llm_call(NOON + timedelta(hours=1), cost=None, agent=None)]))
    first, second = ask(store, "SELECT * FROM v_llm_calls ORDER BY ended_at")
    ended = first["ended_at"]
    ended = datetime.fromisoformat(ended) if isinstance(ended, str) else ended
    assert (ended if ended.tzinfo else ended.replace(tzinfo=UTC)) == NOON
    assert str(first["day"]) == "2026-03-10"
    assert (first["tenant"], first["model"], first["provider"]) == ("acme", "gpt-4o", "openai")
    assert float(first["cost_usd"]) == pytest.approx(0.0105)
    assert (second["cost_usd"], second["agent"], first["prompt_name"]) == (None, None, None)


def test_days_are_summed_up(store: Store) -> None:
    """Requests, failures, tokens and money of a day in UTC, and the percentiles of its latency."""
    calls = [llm_call(duration_s=number / 10) for number in range(1, 101)]
    late = llm_call(NOON + timedelta(hours=12), status=Status.ERROR, cost=None)
    Writer(store).write(rows_of([*calls, late, llm_call(NOON + timedelta(hours=12), status=Status.CANCELLED)]))
    today, tomorrow = ask(store, "SELECT * FROM v_daily_costs ORDER BY day")
    assert (str(today["day"]), today["requests"], today["failures"]) == (str(date(2026, 3, 10)), 100, 0)
    assert today["input_tokens"] == 100_000
    assert float(today["cost_usd"]) == pytest.approx(1.05)
    assert (tomorrow["requests"], tomorrow["failures"], tomorrow["requests_with_known_cost"]) == (2, 1, 1)
    latency = ask(store, "SELECT * FROM v_daily_latency ORDER BY day")[0]
    assert (latency["requests"], latency["p50_ms"], latency["p95_ms"]) == (100, 5_000.0, 9_500.0)
    assert (latency["p99_ms"], latency["mean_ms"]) == (9_900.0, pytest.approx(5_050.0))


def test_views_come_and_go_with_the_version(store: Store) -> None:
    """Going back drops them, and upgrading makes them again."""
    downgrade(store, "0003")
    with store.writing() as connection:
        known = "sqlite_master WHERE type = 'view'" if store.is_sqlite else "information_schema.views"
        column = "name" if store.is_sqlite else "table_name"
        found = {line[0] for line in connection.execute(text(f"SELECT {column} FROM {known}"))}  # noqa: S608  constants
    assert found.isdisjoint(VIEWS)
    upgrade(store)
    assert [ask(store, f"SELECT count(*) AS n FROM {view}")[0]["n"] for view in VIEWS] == [0, 0, 0]  # noqa: S608
