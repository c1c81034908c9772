"""The clock of a recorder, beside the clocks of the system."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs._support import clock as module
from taskpilot_obs._support.clock import Clock

PAUSES = st.lists(st.integers(0, 50_000_000), min_size=1, max_size=15)


@given(PAUSES)
def test_what_has_happened_never_lies_ahead(pauses: list[int]) -> None:
    """A thread that loses the processor between its readings of two clocks dates no event ahead of the wall clock."""
    ticks, left = 0, pauses * 2

    def now() -> int:
        nonlocal ticks
        ticks += 40 + (left.pop() if left else 0)
        return ticks

    clocks = SimpleNamespace(perf_counter_ns=now, time_ns=lambda: now() + 1_000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "time", clocks)
        clock = Clock()
    assert clock.unix_ns(ticks) <= ticks + 1_000


def test_one_pause_does_not_move_the_time() -> None:
    """The narrowest of several readings counts, so that a pause during one of them leaves no error."""
    pauses, ticks = [30_000_000], 0

    def now() -> int:
        nonlocal ticks
        ticks += 40 + (pauses.pop() if pauses else 0)
        return ticks

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "time", SimpleNamespace(perf_counter_ns=now, time_ns=now))
        clock = Clock()
    assert -100 <= clock.unix_ns(ticks) - ticks <= 0


def test_the_clock_agrees_with_the_systems() -> None:
    """A time that the recorder's clock gives is not after the system's, read later."""
    clock = Clock()
    for _ in range(1_000):
        stamped = clock.unix_ns(clock.now())
        assert stamped <= time.time_ns()
