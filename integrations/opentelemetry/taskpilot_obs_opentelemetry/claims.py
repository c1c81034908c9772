"""Which LLM calls something else in this process records, so that the bridge does not record them again.

A call that a handler or decorator records ("native") and a span of the SDK beneath it are one call. Contexts show that
only where the native one is current around the span; LangChain's asynchronous callbacks leave no trace in the model's
context. Response IDs show it always, once both have ended: until then the span's record is held.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, Status

MOST_REMEMBERED: Final = 2_048
"""Response IDs of native calls that have ended, and records that are held."""
MOST_WITHOUT_ID: Final = 256
"""Native calls that have ended without a response ID, and may still own a span that has not."""


_EITHER: Final = (Status.ABANDONED, Status.CANCELLED, Status.BLOCKED)


class SpanCall(NamedTuple):
    """One LLM call, as two layers may see it."""

    parent: int
    """Number of the run above; 0 for none."""
    model: str | None
    response_id: str | None
    failed: bool | None
    """None where the other layer may see it either way: left or cancelled streams."""
    start_ns: int
    end_ns: int


class HeldRecord(NamedTuple):
    """The record of a span that a native call may own."""

    call: SpanCall
    rivals: set[int]
    """Native calls that were open when the span ended."""
    release: Callable[[], None]
    fold: Callable[[], None]


class _Open(NamedTuple):
    parent: int
    model: str | None
    start_ns: int

    def may_be(self, call: SpanCall) -> bool:
        return self.parent == call.parent and _fits(self.model, call.model)


class NativeCalls:
    """Learns of native LLM calls (`LlmListener`), and settles which spans are theirs.

    The listener's methods run on any thread, in finalizers too, so they only append; `settle` does the rest.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._ended: deque[tuple[int, SpanCall]] = deque()
        self._done: deque[SpanCall] = deque(maxlen=MOST_WITHOUT_ID)
        self._ids: dict[str, SpanCall | None] = {}
        self._new: deque[HeldRecord] = deque()
        self._held: list[HeldRecord] = []
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How many records wait."""
        return len(self._held)

    def llm_began(self, run: LlmInvocation, /) -> None:
        """Note a call that has begun."""
        self._open[run.number] = _Open(number_of(run.parent), run.request_model, time.time_ns())

    def llm_ended(self, run: LlmInvocation, /) -> None:
        """Note that it has ended, and settle what waited for it."""
        begun = self._open.get(run.number)
        if begun is not None:
            failed = None if run.status in _EITHER else run.status is not Status.SUCCESS
            call = SpanCall(begun.parent, run.request_model, run.response_id, failed, begun.start_ns, time.time_ns())
            self._ended.append((run.number, call))
        self.settle()

    def submit(self, call: SpanCall, release: Callable[[], None], fold: Callable[[], None]) -> None:
        """Record a span's call, or do not, now or when the native calls that may own it have ended.

        Args:
            call: what the span states.
            release: records it.
            fold: notes that it was recorded already.
        """
        if not (self._open or self._ids or self._done or self._ended):
            release()
            return
        # A copy: to make a tuple of each item may run the collector, whose finalizers end calls.
        rivals = {number for number, begun in self._open.copy().items() if begun.may_be(call)}
        self._new.append(HeldRecord(call, rivals, release, fold))
        self.settle()

    def settle(self) -> None:
        """Decide about held records as far as possible. The thread that holds the lock does it for all."""
        while self._new or self._ended:
            # Never wait: a finalizer may run this on the thread that holds the lock, which looks again below.
            if not self._lock.acquire(blocking=False):
                return
            try:
                decided = self._decide()
            finally:
                self._lock.release()
            for act in decided:
                act()

    def release_all(self) -> None:
        """Record what is still held: at the end of the process."""
        with self._lock:
            waiting, self._held = self._held, []
        for held in waiting:
            held.release()

    def _decide(self) -> list[Callable[[], None]]:
        while self._new:
            self._held.append(self._new.popleft())
        while self._ended:
            self._note_end(*self._ended.popleft())
        decided: list[Callable[[], None]] = []
        waiting: list[HeldRecord] = []
        for held in self._held:
            if self._owned(held.call):
                decided.append(held.fold)
            elif held.rivals & self._open.keys():
                waiting.append(held)
            else:
                decided.append(held.release)
        while len(waiting) > MOST_REMEMBERED:
            decided.append(waiting.pop(0).release)
        self._held = waiting
        return decided

    def _note_end(self, number: int, call: SpanCall) -> None:
        self._open.pop(number, None)
        if call.response_id is None:
            self._done.append(call)
            return
        self._ids[call.response_id] = call
        while len(self._ids) > MOST_REMEMBERED:
            del self._ids[next(iter(self._ids))]

    def _owned(self, call: SpanCall) -> bool:
        """Whether a native call that has ended is this one. Without a common response ID, each owns one span."""
        if call.response_id is not None and call.response_id in self._ids:
            return True
        for native in self._done:
            if _alike(native, call):
                self._done.remove(native)
                return True
        return call.response_id is None and self._claim(call)

    def _claim(self, call: SpanCall) -> bool:
        """Whether a native call with a response ID is this one, which states none."""
        for response_id, native in reversed(self._ids.items()):
            if native is not None and _alike(native, call):
                self._ids[response_id] = None
                return True
        return False


def _alike(native: SpanCall, call: SpanCall) -> bool:
    """Whether two calls without a common response ID are one: same parent, model and outcome, one within the other.

    A layer that is cancelled may end before the one beneath it, which then only has to begin within it.
    """
    if native.parent != call.parent or not _fits(native.model, call.model):
        return False
    if native.failed is not None and native.failed != call.failed:
        return False
    if native.start_ns <= call.start_ns <= native.end_ns:
        return True
    ends_within = native.end_ns <= call.end_ns or native.failed is None
    return call.start_ns <= native.start_ns <= call.end_ns and ends_within


def _fits(model: str | None, other: str | None) -> bool:
    return model is None or other is None or model == other


def number_of(run: ActiveInvocation | None) -> int:
    """What identifies a run in this process; 0 for none."""
    return 0 if run is None else run.number
