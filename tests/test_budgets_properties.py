"""What holds of a process' own ledger in any order of events, and of periods at any moment."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from _budget_machine import STEPS, Step, run
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.ledger import MemoryLedger

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"])
MOMENTS = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1), timezones=st.just(ZoneInfo("UTC")))  # noqa: DTZ001  bounds are naive in hypothesis


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_spend_never_passes_the_limit_by_more_than_the_error_of_the_estimates(steps: list[Step]) -> None:
    """Any interleaving of reserve, settle, crash and expiry."""
    run([MemoryLedger()], steps)


@settings(max_examples=150, deadline=None)
@given(MOMENTS, st.sampled_from(["day", "week", "month"]), ZONES)
def test_periods_follow_each_other_without_gap(utc_now: datetime, period: str, zone: str) -> None:
    """Each moment lies in one period, and where one ends the next begins, over every change of the clocks."""
    budget = Budget("team", limit_usd=1, period=period, timezone=zone)  # type: ignore[arg-type]
    windows = [budget.window(utc_now)]
    for _ in range(3):
        end = windows[-1].end
        assert end is not None
        windows.append(budget.window(end))
    first = windows[0]
    assert first.end is not None
    assert first.start <= utc_now < first.end
    for before, after in pairwise(windows):
        assert before.end == after.start
        assert before.end is not None
        assert budget.window(before.end - timedelta(microseconds=1)) == before
