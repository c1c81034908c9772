"""Sums and durations of calls, read together."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from _stored import NOON, llm_call

from taskpilot_obs._telemetry.answers import By
from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs.records import Status
from taskpilot_obs.store import Store, aggregate_summaries
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
    with asked_of(store, NOON - timedelta(days=4), NOON + timedelta(hours=5), Filters()) as question:
        asked = (question.connection, question.plan(dimensions), question.filters, By(dimensions))
        sums, durations = measured(*asked)
        expected, apart = totals(*asked), bins(*asked)
    assert durations == apart
    assert sum(counts.requests for counts in sums.values()) == 300
    assert sums.keys() == expected.keys()
    for key, counts in sums.items():
        assert counts.latency_total_ms == pytest.approx(expected[key].latency_total_ms)
        assert counts._replace(latency_total_ms=0) == expected[key]._replace(latency_total_ms=0)
