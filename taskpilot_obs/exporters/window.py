"""The last 24 hours of this process in bounded memory, from which golden signals of a window are computed.

Runs, calls, decisions and feedback are counted in slices of time: 10 s each for the last 15 minutes, 5 min each for the
last 24 hours. A window is rounded up to whole slices, and the result reports its real length. Each slice has one
quantile sketch for all tasks; single workflows have bucket counts only, and names beyond the label's bound become
`__other__`, which bounds the memory.

There is no lock. Only one thread exports at a time, and slices that a reader can reach are replaced, not changed. So a
reader sees each slice as it was after a whole batch, and a finalizer that runs during a read cannot deadlock.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Final, NamedTuple, TypeVar

from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs._support.guarded import run_to_completion
from taskpilot_obs._support.sketch import Sketch
from taskpilot_obs._support.timestamps import MICROSECOND, NANOSECONDS
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import (
    LLM_OPERATIONS,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Pricing,
    Record,
    Rollup,
    Started,
    Status,
    Verdict,
)
from taskpilot_obs.semconv import LABEL_BOUNDS, OTHER, WORKFLOW_BUCKETS, Label

MAX_WINDOW: Final = timedelta(hours=24)
FINE_WINDOW: Final = timedelta(minutes=15)
_FINE_NS: Final = 10 * NANOSECONDS
_COARSE_NS: Final = 300 * NANOSECONDS
_FINE_SLICES: Final = 90
_COARSE_SLICES: Final = 288
_ZERO: Final = Decimal(0)
_FOREVER: Final = float("inf")


class WorkflowCounts:
    """Counts of one workflow in a slice of time."""

    __slots__ = ("buckets", "cost", "runs", "runs_with_violations")

    def __init__(self) -> None:
        self.runs: dict[Status, int] = {}
        self.buckets: dict[int, int] = {}
        """Runs by index into `WORKFLOW_BUCKETS`; the last index counts longer runs."""
        self.cost = _ZERO
        self.runs_with_violations = 0

    def add(self, status: Status, durations: Sequence[float]) -> None:
        """Count runs with a status, by duration in seconds."""
        self.runs = _sum(self.runs, {status: len(durations)})
        self.buckets = _sum(self.buckets, Counter(map(_bucket_of, durations)))

    def add_rollup(self, rollup: Rollup) -> None:
        """Add the cost and calls of one run."""
        self.cost += rollup.cost
        self.runs_with_violations += rollup.violations > 0

    def plus(self, other: WorkflowCounts) -> WorkflowCounts:
        """The sum of both, as a new object."""
        total = WorkflowCounts()
        total.runs = _sum(self.runs, other.runs)
        total.buckets = _sum(self.buckets, other.buckets)
        total.cost = self.cost + other.cost
        total.runs_with_violations = self.runs_with_violations + other.runs_with_violations
        return total


class Slice:
    """Counts of a stretch of time."""

    __slots__ = (
        "cost",
        "durations",
        "feedback",
        "llm_calls",
        "partly_priced_calls",
        "unpriced_calls",
        "violations",
        "workflows",
    )

    def __init__(self) -> None:
        self.workflows: dict[str, WorkflowCounts] = {}
        self.durations = Sketch()
        self.cost = _ZERO
        self.llm_calls = 0
        """LLM calls that may cost something."""
        self.unpriced_calls = 0
        self.partly_priced_calls = 0
        self.violations = 0
        self.feedback: dict[tuple[bool, bool], int] = {}
        """Verdicts of users, by (correct, revision)."""

    def add_tasks(self, name: str, status: Status, durations: Sequence[float]) -> None:
        """Count finished tasks of a name with a status."""
        self.durations.add(durations)
        self._workflow(name).add(status, durations)

    def add_rollup(self, name: str, rollup: Rollup) -> None:
        """Add the cost and calls of one task of this name."""
        self._workflow(name).add_rollup(rollup)

    def _workflow(self, name: str) -> WorkflowCounts:
        counts = self.workflows.get(name)
        if counts is None:
            counts = self.workflows[name] = WorkflowCounts()
        return counts

    def add_llm_call(self, call: Invocation) -> None:
        """Count one finished LLM call, unless it is free because it was cached or refused."""
        pricing = call.pricing
        if pricing is Pricing.FREE:
            return
        self.llm_calls += 1
        self.unpriced_calls += pricing is Pricing.UNPRICED
        self.partly_priced_calls += pricing is Pricing.PARTIAL
        if call.cost is not None:
            self.cost += call.cost

    def add_feedback(self, feedback: Feedback) -> None:
        """Count one verdict of a user."""
        key = (feedback.correct, feedback.revision)
        self.feedback[key] = self.feedback.get(key, 0) + 1

    def merge(self, other: Slice) -> None:
        """Add another slice, which is shared from now on and must not change."""
        workflows = self.workflows
        for name, theirs in other.workflows.items():
            mine = workflows.get(name)
            workflows[name] = theirs if mine is None else mine.plus(theirs)
        self.durations.merge(other.durations)
        self.cost += other.cost
        self.llm_calls += other.llm_calls
        self.unpriced_calls += other.unpriced_calls
        self.partly_priced_calls += other.partly_priced_calls
        self.violations += other.violations
        self.feedback = _sum(self.feedback, other.feedback)

    def plus(self, other: Slice) -> Slice:
        """The sum of both, as a new object."""
        total = Slice()
        total.merge(self)
        total.merge(other)
        return total


_Key = TypeVar("_Key")


_bucket_of = partial(bisect_left, WORKFLOW_BUCKETS)


def _sum(mine: dict[_Key, int], theirs: Mapping[_Key, int]) -> dict[_Key, int]:
    total = mine.copy()
    for key, count in theirs.items():
        total[key] = total.get(key, 0) + count
    return total


class WindowReading(NamedTuple):
    """The counts from `start_unix_ns` to `end_unix_ns`."""

    start_unix_ns: int
    end_unix_ns: int
    totals: Slice


class _Tier:
    """Slices of one length: the current one and up to `limit` earlier ones."""

    def __init__(self, slice_ns: int, limit: int) -> None:
        self.slice_ns = slice_ns
        self.limit = limit
        self.slices: dict[int, Slice] = {}

    def add(self, time_unix_ns: int, delta: Slice, now: int) -> None:
        current = now // self.slice_ns
        index = min(time_unix_ns // self.slice_ns, current)
        if index < current - self.limit:
            return
        held = self.slices.get(index)
        self.slices[index] = delta if held is None else held.plus(delta)
        if held is None:
            self._tidy(current)

    def _tidy(self, current: int) -> None:
        """Drop old slices, and merge slices in the future (the clock was set back) into the current one."""
        for index in list(self.slices):
            if index < current - self.limit:
                del self.slices[index]
            elif index > current:
                self.slices[current] = self.slices.get(current, Slice()).plus(self.slices.pop(index))

    def read(self, window_ns: int, now: int) -> WindowReading:
        first = (now - window_ns) // self.slice_ns
        totals = Slice()
        for index, held in list(self.slices.items()):
            if index >= first:
                totals.merge(held)
        return WindowReading(first * self.slice_ns, now, totals)


class RollingWindow:
    """An in-memory exporter that answers for any window up to 24 hours.

    Args:
        clock: the time as nanoseconds since the Unix epoch.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self.clear()
        renew_in_child(self)

    def clear(self) -> None:
        """Drop all counts: a child process starts with an empty window."""
        self._fine = _Tier(_FINE_NS, _FINE_SLICES)
        self._coarse = _Tier(_COARSE_NS, _COARSE_SLICES)
        self._names: set[str] = set()

    def after_fork(self) -> None:
        """Drop the counts of the parent process."""
        self.clear()

    def export(self, batch: Sequence[Record], /) -> None:
        """Count a batch of records."""
        counted: set[int] = set()
        run_to_completion(lambda: self._count_rest(batch, counted))

    def _count_rest(self, batch: Sequence[Record], counted: set[int]) -> None:
        deltas: defaultdict[int, Slice] = defaultdict(Slice)
        tasks: defaultdict[tuple[int, str, Status], list[float]] = defaultdict(list)
        names, index, end_of_slice = self._names, 0, 0
        for record in batch:
            if isinstance(record, Started):  # half of all records
                continue
            if isinstance(record, Invocation) and record.is_task:
                name, seconds = record.name, record.duration_s
                name = name if name in names else self._admitted(name)
                ended = record.start_unix_ns + seconds * NANOSECONDS
                if not end_of_slice - _FINE_NS <= ended < end_of_slice:  # most share the previous one's slice
                    index = _end(record.start_unix_ns, seconds) // _FINE_NS
                    end_of_slice = (index + 1) * _FINE_NS
                tasks[index, name, record.status].append(seconds)
                if record.rollup is not None:
                    deltas[index].add_rollup(name, record.rollup)
                continue
            time_unix_ns = _time_of(record)
            if time_unix_ns is not None:
                self._count(deltas[time_unix_ns // _FINE_NS], record)
        for (index, name, status), durations in tasks.items():
            deltas[index].add_tasks(name, status, durations)
        now = self._clock()
        for index, delta in deltas.items():
            if index in counted:
                continue
            counted.add(index)
            self._fine.add(index * _FINE_NS, delta, now)
            self._coarse.add(index * _FINE_NS, delta, now)

    def read(self, window: timedelta) -> WindowReading:
        """Return the sums of the slices in this window, up to now. Callable from any thread.

        Raises:
            ConfigurationError: the window is not positive, or longer than 24 hours.
        """
        if not timedelta(0) < window <= MAX_WINDOW:
            raise ConfigurationError(
                f"a window in this process must be longer than 0 and at most 24h, not {window}; "
                "ask a Prometheus server for more"
            )
        tier = self._fine if window <= FINE_WINDOW else self._coarse
        return tier.read(window // MICROSECOND * 1000, self._clock())

    def _count(self, delta: Slice, record: Record) -> None:
        if isinstance(record, Invocation):
            delta.add_llm_call(record)
        elif isinstance(record, Decision):
            delta.violations += record.kind is DecisionKind.POLICY and record.verdict is Verdict.DENY
        elif isinstance(record, Feedback):
            delta.add_feedback(record)

    def _admitted(self, name: str) -> str:
        if len(self._names) < LABEL_BOUNDS[Label.WORKFLOW]:
            self._names.add(name)
            return name
        return OTHER


def _time_of(record: Record) -> int | None:
    """The time at which a record counts; None for records that no signal uses."""
    if isinstance(record, Invocation):
        return _end(record.start_unix_ns, record.duration_s) if record.operation in LLM_OPERATIONS else None
    if isinstance(record, Decision | Feedback):
        return record.time_unix_ns
    return None


def _end(start_unix_ns: int, duration_s: float) -> int:
    """The time of the end, or of the start if the duration is invalid."""
    return start_unix_ns + int(duration_s * NANOSECONDS) if 0 <= duration_s < _FOREVER else start_unix_ns
