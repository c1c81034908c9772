"""The rolling window against brute force, and its bounds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from datetime import timedelta
from decimal import Decimal
from math import ceil, isclose
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs._pipeline.exporter import Exporter
from taskpilot_obs._support.sketch import RELATIVE_ERROR, Sketch
from taskpilot_obs._support.timestamps import NANOSECONDS
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.window import FINE_WINDOW, RollingWindow
from taskpilot_obs.records import (
    AuditEvent,
    CacheSize,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Origin,
    Record,
    Rollup,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.semconv import OTHER, WORKFLOW_BUCKETS

NOW = 1_790_000_003 * NANOSECONDS
ORIGIN = Origin()


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def invocation(
    end_unix_ns: int,
    *,
    operation: Operation = Operation.WORKFLOW,
    name: str = "handle",
    status: Status = Status.SUCCESS,
    duration_ms: int = 500,
    is_task: bool = True,
    cost: Decimal | None = None,
    cached: bool | None = None,
    rollup: Rollup | None = None,
) -> Invocation:
    return Invocation(
        operation=operation,
        name=name,
        status=status,
        request_id="r",
        invocation_id="i",
        parent_id=None,
        workflow=None,
        agent=None,
        start_unix_ns=end_unix_ns - duration_ms * 1_000_000,
        duration_s=duration_ms / 1000,
        is_task=is_task,
        cost=cost,
        cached=cached,
        rollup=rollup,
    )


def chat(end_unix_ns: int, cost: Decimal | None, *, cached: bool | None = None) -> Invocation:
    return invocation(end_unix_ns, operation=Operation.CHAT, name="gpt", is_task=False, cost=cost, cached=cached)


def decision(at: int, kind: DecisionKind, verdict: Verdict) -> Decision:
    return Decision(kind, "pii", verdict, CheckResult.PASSED, ORIGIN, at)


moments = st.integers(min_value=0, max_value=26 * 3600 * 10).map(lambda tenths: NOW - tenths * 100_000_000)
money = st.none() | st.decimals(min_value=0, max_value=10, places=6)
tasks = st.builds(
    invocation,
    moments,
    operation=st.sampled_from([Operation.WORKFLOW, Operation.AGENT]),
    name=st.sampled_from(["handle", "triage", "report"]),
    status=st.sampled_from(list(Status)),
    duration_ms=st.integers(min_value=0, max_value=7_200_000),
    is_task=st.booleans(),
    rollup=st.none() | st.builds(Rollup, cost=st.decimals(0, 5, places=6), violations=st.integers(0, 2)),
)
chats = st.builds(chat, moments, money, cached=st.sampled_from([None, True, False]))
decisions = st.builds(decision, moments, st.sampled_from(list(DecisionKind)), st.sampled_from(list(Verdict)))
feedback = st.builds(
    lambda at, correct, revision: Feedback("r", correct, revision, ORIGIN, at), moments, st.booleans(), st.booleans()
)
records = st.lists(tasks | chats | decisions | feedback, max_size=60)
windows = st.integers(min_value=1, max_value=24 * 3600).map(lambda seconds: timedelta(seconds=seconds))


def time_of(record: Record) -> int:
    if isinstance(record, Invocation):
        return record.start_unix_ns + int(record.duration_s * NANOSECONDS)
    assert isinstance(record, Decision | Feedback)
    return record.time_unix_ns


@settings(deadline=None)
@given(records, windows, st.integers(1, 20))
def test_any_window_agrees_with_brute_force(stream: list[Record], asked: timedelta, batch: int) -> None:
    """Every count and sum equals that of the records that ended since the window's real start."""
    window = RollingWindow(Clock())
    for first in range(0, len(stream), batch):
        window.export(stream[first : first + batch])
    start, end, totals = window.read(asked)

    slice_s = 10 if asked <= FINE_WINDOW else 300
    assert start % (slice_s * NANOSECONDS) == 0
    assert end == NOW
    assert asked <= timedelta(microseconds=(end - start) / 1000) < asked + timedelta(seconds=slice_s)

    inside = [record for record in stream if time_of(record) >= start]
    runs = [record for record in inside if isinstance(record, Invocation) and record.is_task]
    calls = [r for r in inside if isinstance(r, Invocation) and r.operation is Operation.CHAT and not r.cached]
    assert totals.llm_calls == len(calls)
    assert totals.unpriced_calls == sum(call.is_unpriced for call in calls)
    assert totals.cost == sum((call.cost or Decimal(0) for call in calls), Decimal(0))
    assert totals.violations == sum(
        isinstance(r, Decision) and r.kind is DecisionKind.POLICY and r.verdict is Verdict.DENY for r in inside
    )
    for correct in (True, False):
        for revision in (True, False):
            given_so = [r for r in inside if isinstance(r, Feedback) and (r.correct, r.revision) == (correct, revision)]
            assert totals.feedback.get((correct, revision), 0) == len(given_so)
    assert set(totals.workflows) == {run.name for run in runs}
    for name, counts in totals.workflows.items():
        mine = [run for run in runs if run.name == name]
        assert counts.runs == {s: n for s in Status if (n := sum(run.status is s for run in mine))}
        assert counts.cost == sum((run.rollup.cost for run in mine if run.rollup), Decimal(0))
        assert counts.runs_with_violations == sum(bool(run.rollup and run.rollup.violations) for run in mine)
        for index, bound in enumerate(WORKFLOW_BUCKETS):
            below = sum(count for bucket, count in counts.buckets.items() if bucket <= index)
            assert below == sum(run.duration_s <= bound for run in mine)
    assert sum(totals.durations.counts.values()) == len(runs)


@settings(deadline=None)
@given(st.lists(st.floats(min_value=1e-6, max_value=1e5), min_size=1), st.floats(min_value=0, max_value=1))
def test_quantiles_are_within_one_percent(durations: list[float], q: float) -> None:
    """A quantile of the merged sketch is within 1 % of the duration at that rank."""
    parts = [Sketch(), Sketch()]
    for index, duration in enumerate(durations):
        parts[index % 2].add([duration])
    parts[0].merge(parts[1])
    exact = sorted(durations)[max(0, ceil(round(q * len(durations), 9)) - 1)]
    estimate = parts[0].quantile(q)
    assert estimate is not None
    assert isclose(estimate, exact, rel_tol=RELATIVE_ERROR * 1.0001)


@pytest.mark.parametrize("odd", [0.0, -1.0, float("nan"), float("inf")])
def test_odd_durations_are_counted_not_raised(odd: float) -> None:
    """A duration that cannot be still counts as one run."""
    sketch = Sketch()
    sketch.add([odd])
    assert sum(sketch.counts.values()) == 1


@pytest.mark.parametrize("odd", [-1.0, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("operation", [Operation.WORKFLOW, Operation.CHAT])
def test_a_record_with_an_odd_duration_costs_no_other_its_count(odd: float, operation: Operation) -> None:
    """A record made by hand whose duration is not a number counts when it began, and so do those beside it."""
    window = RollingWindow(Clock())
    fine = invocation(NOW, operation=operation, is_task=operation is Operation.WORKFLOW)
    window.export([fine, fine._replace(duration_s=odd, start_unix_ns=NOW), fine])
    totals = window.read(timedelta(minutes=1)).totals
    assert sum(totals.durations.counts.values()) + totals.llm_calls == 3


def test_an_empty_sketch_has_no_quantile() -> None:
    """Without durations there is no quantile, not 0."""
    assert Sketch().quantile(0.95) is None


def test_the_window_is_an_exporter_that_skips_what_no_signal_needs() -> None:
    """The window takes every kind of record and counts only those behind a signal."""
    window = RollingWindow(Clock())
    assert isinstance(window, Exporter)
    window.export(
        [
            Started(Operation.WORKFLOW, "handle", "r", "i", None, None, None, NOW),
            AuditEvent("task.created", ORIGIN, NOW),
            CacheSize("answers", 3, NOW),
        ]
    )
    assert not window.read(timedelta(minutes=1)).totals.workflows


@pytest.mark.parametrize("window", [timedelta(0), timedelta(seconds=-1), timedelta(hours=24, microseconds=1)])
def test_windows_out_of_range_are_refused(window: timedelta) -> None:
    """A window that is not positive or exceeds 24 hours is refused with the range that is allowed."""
    with pytest.raises(ConfigurationError, match="at most 24h"):
        RollingWindow(Clock()).read(window)


def test_runs_leave_the_window_as_time_passes() -> None:
    """A run is in the 1-minute window, then only in the hour's, then in none."""
    clock = Clock()
    window = RollingWindow(clock)
    window.export([invocation(NOW)])
    assert window.read(timedelta(minutes=1)).totals.workflows
    clock.now += 5 * 60 * NANOSECONDS
    assert not window.read(timedelta(minutes=1)).totals.workflows
    assert window.read(timedelta(hours=1)).totals.workflows
    clock.now += 25 * 3600 * NANOSECONDS
    window.export([invocation(clock.now, name="late")])
    assert set(window.read(timedelta(hours=24)).totals.workflows) == {"late"}


def test_a_record_older_than_a_day_is_not_kept() -> None:
    """What ended before the longest window is not stored at all."""
    window = RollingWindow(Clock())
    window.export([invocation(NOW - 25 * 3600 * NANOSECONDS)])
    assert not window.read(timedelta(hours=24)).totals.workflows


def test_a_clock_that_is_set_back_loses_nothing_and_stays_bounded() -> None:
    """Runs from before a backward step still count, and are folded into the present."""
    clock = Clock()
    window = RollingWindow(clock)
    for _ in range(50):
        window.export([invocation(clock.now)])
        clock.now -= 3600 * NANOSECONDS
    window.export([invocation(clock.now)])
    assert window.read(timedelta(minutes=1)).totals.workflows["handle"].runs == {Status.SUCCESS: 51}
    assert len(window._fine.slices) == 1


def test_names_beyond_the_bound_are_folded_and_none_is_lost() -> None:
    """The 101st workflow and those after it are counted together under `__other__`."""
    window = RollingWindow(Clock())
    window.export([invocation(NOW, name=f"w{number}") for number in range(150)])
    workflows = window.read(timedelta(minutes=1)).totals.workflows
    assert len(workflows) == 101
    assert workflows[OTHER].runs == {Status.SUCCESS: 50}


def test_a_cleared_window_knows_nothing() -> None:
    """After `clear`, as in a forked child, nothing of before is left."""
    window = RollingWindow(Clock())
    window.export([invocation(NOW)])
    window.clear()
    assert not window.read(timedelta(hours=24)).totals.workflows


FORK = """
import os
from datetime import timedelta
from taskpilot_obs.exporters.window import RollingWindow
from test_window import NOW, Clock, invocation
window = RollingWindow(Clock())
window.export([invocation(NOW)])
child = os.fork()
known = bool(window.read(timedelta(hours=1)).totals.workflows)
if not child:
    os._exit(known)
print(known, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_starts_with_a_window_of_its_own() -> None:
    """After a fork the parent still knows its runs, and the child knows none of them."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", FORK], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "0"]


def test_a_day_of_full_load_is_bounded() -> None:
    """A day of 100 workflows with scattered durations stays below 40 MB, and a second day adds nothing."""
    clock, random = Clock(), Random(1)
    window = RollingWindow(clock)

    def day() -> int:
        for _ in range(24 * 12):
            batch = [
                invocation(clock.now, name=f"w{number}", duration_ms=int(random.lognormvariate(6, 2)) + 1)
                for number in range(100)
            ]
            window.export(batch)
            clock.now += 300 * NANOSECONDS
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first, second = day(), day()
    finally:
        tracemalloc.stop()
    assert first < 40_000_000
    assert second - first < 1_000_000


def test_readers_on_other_threads_see_whole_batches() -> None:
    """While one thread exports, every reading of another holds as many durations as runs."""
    window = RollingWindow(Clock())
    batch = [invocation(NOW, name=name) for name in ("a", "b", "c", "d")]
    stop = threading.Event()
    torn: list[tuple[int, int]] = []

    def read() -> None:
        while not stop.is_set():
            totals = window.read(timedelta(minutes=5)).totals
            runs = sum(sum(counts.runs.values()) for counts in totals.workflows.values())
            durations = sum(totals.durations.counts.values())
            if runs != durations or runs % 4:
                torn.append((runs, durations))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2_000):
        window.export(batch)
    stop.set()
    reader.join()
    assert torn == []
    totals = window.read(timedelta(minutes=5)).totals
    assert sum(totals.durations.counts.values()) == 8_000
