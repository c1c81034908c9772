"""Helpers for testing instrumented code.

with capture_invocations() as seen:
    handle("create a task")
assert [run.name for run in seen] == ["create_task", "PlannerAgent", "handle"]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar, Unpack, overload
from weakref import WeakSet

from prometheus_client import CollectorRegistry  # noqa: TID251  a test's metrics live in a registry of their own

from taskpilot_obs._recording.build import build
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._support.clock import Clock
from taskpilot_obs.config import get_recorder
from taskpilot_obs.records import Invocation, Record
from taskpilot_obs.settings import Options, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R", bound=Record)
_numbers = count(1)


class Captured(Sequence[R]):
    """Captured records; reading drains the pipeline first, so that everything recorded so far is included.

    Args:
        kind: the class of the records to capture.
        drain: what reading calls first.
    """

    def __init__(self, kind: type[R], drain: Callable[[], None]) -> None:
        self._kind = kind
        self._drain = drain
        self._records: list[R] = []

    def export(self, batch: Sequence[Record], /) -> None:
        """Keep the records of the wanted kind."""
        self._records.extend(record for record in batch if isinstance(record, self._kind))

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        self._drain()
        return self._records[index]

    def __len__(self) -> int:
        self._drain()
        return len(self._records)


@contextmanager
def capture_records(kind: type[R], recorder: Recorder | None = None) -> Iterator[Captured[R]]:
    """Capture finished records of one kind (`Invocation`, `Started`, `Decision`, `Feedback`, `AuditEvent`).

    Args:
        kind: the record class.
        recorder: the recorder to observe; by default the default recorder.

    Yields:
        The list that grows with each record.
    """
    used = recorder or get_recorder()
    captured = Captured(kind, used.drain)
    name = f"captured_{next(_numbers)}"
    pipeline = used.pipeline
    pipeline.add(name, captured)
    try:
        yield captured
    finally:
        pipeline.remove(name)


@contextmanager
def capture_invocations(recorder: Recorder | None = None) -> Iterator[Captured[Invocation]]:
    """Capture every finished invocation of a block, in the order in which they ended."""
    with capture_records(Invocation, recorder) as captured:
        yield captured


@contextmanager
def fresh_recorder(*, clock: Clock | None = None, **options: Unpack[Options]) -> Iterator[Recorder]:
    """Give the default recorder fresh parts for a block: no counts, no window, a Prometheus registry of its own.

    Decorated functions record into them; afterwards the previous parts are restored. Options as for `configure`.

    Args:
        clock: for example a `FixedClock`.
        options: see `Settings`.

    Yields:
        The default recorder.
    """
    recorder = get_recorder()
    registry = options.pop("registry", None) or CollectorRegistry()
    settings = Settings.resolve({**options, "registry": registry})
    parts = build(settings, recorder, clock=clock)
    limiting, recorder.wiring.limiting = recorder.wiring.limiting, WeakSet()
    before, listeners = recorder.wiring.swap(parts), recorder.runtime.llm_listeners
    recorder.runtime.llm_listeners = ()
    try:
        yield recorder
    finally:
        recorder.runtime.llm_listeners, recorder.wiring.limiting = listeners, limiting
        if before is not None:
            recorder.wiring.swap(before)
        parts.pipeline.shutdown()


class FixedClock(Clock):
    """A clock that stands still until `advance` is called.

    Args:
        unix_ns: the wall-clock time at which it stands, in nanoseconds since the epoch.
    """

    def __init__(self, unix_ns: int = 1_767_225_600_000_000_000) -> None:
        super().__init__()
        self._time = unix_ns
        self.now = self._read
        self.offset = 0

    def _read(self) -> int:
        return self._time

    def refresh(self) -> None:
        """Do nothing: a fixed clock has no anchor to renew."""

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`."""
        self._time += int(seconds * 1e9)
