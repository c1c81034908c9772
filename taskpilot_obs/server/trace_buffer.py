"""Spans wait here for the rest of their trace: children arrive before their parents, which name and group them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Final

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.genai_spans import FinishedSpan, SpanAbove, SpansRead, read_spans
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.records import LLM_OPERATIONS, Invocation

MOST_SPANS: Final = 50_000
"""Spans that wait at most; past it the oldest trace is written as far as it has come."""
MOST_OF_A_TRACE: Final = 5_000
QUIET_S: Final = 10.0
"""A trace without a root is written when nothing of it came for so long."""
_REMEMBERED: Final = 2_000
"""Traces whose runs are remembered, so that late spans find their parents."""
_TICK_S: Final = 1.0
_AT_ONCE: Final = 1_000
"""About how many spans are written in one transaction."""

Key = tuple[str | None, str]
"""Tenant and trace."""
Write = Callable[[Sequence[Invocation]], None]


COUNTED: Final = ("received", "ignored", "written", "late", "torn")
"""What becomes of spans. `ignored` are not of the GenAI conventions; they tell where their children stand, and have no
row. `late` were written after their trace: no roll-up above has them. `torn` are traces that were written without their
root, because they were quiet or too many waited."""


class _Pending:
    __slots__ = ("changed_at", "has_root", "spans")

    def __init__(self) -> None:
        self.spans: dict[str, FinishedSpan] = {}
        self.changed_at = 0.0
        self.has_root = False


class TraceBuffer:
    """Gathers the spans of each trace of each tenant, and writes it when its root is there. Threads may share one.

    Args:
        write: puts invocations into the store; raises `StoreError` where it cannot.
        prices: for calls whose spans state no cost.
        clock: monotonic seconds; for tests.
    """

    def __init__(self, write: Write, prices: PriceTable, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._prices = prices
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: OrderedDict[Key, _Pending] = OrderedDict()
        self._remembered: OrderedDict[Key, Mapping[str, SpanAbove]] = OrderedDict()
        self._waiting = 0
        self._known = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._counts = dict.fromkeys(COUNTED, 0)

    def add(self, tenant: str | None, spans: Sequence[FinishedSpan]) -> None:
        """Take spans, and write the traces whose roots are among them.

        Raises:
            StoreError: a whole trace could not be written; it waits on, and the sender may send its spans again.
        """
        with self._lock:
            keys = {self._take(tenant, span) for span in spans}
            self._count(received=len(spans))
            self._release([key for key in keys if self._is_due(key)])
            self._release(self._too_many())
        self._start()

    def flush_quiet(self, quiet_s: float = QUIET_S) -> None:
        """Write every trace of which nothing came for this long.

        Raises:
            StoreError: one could not be written; it waits on.
        """
        with self._lock:
            self._release([key for key, one in self._pending.items() if self._clock() - one.changed_at >= quiet_s])

    def counted(self) -> dict[str, int]:
        """What became of the spans so far, by name."""
        return dict(self._counts)

    def close(self) -> None:
        """Write what waits, as far as it has come, and stop."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_TICK_S * 5)
        try:
            self.flush_quiet(0.0)
        except StoreError as error:
            log_failure("server", error)

    def _is_due(self, key: Key) -> bool:
        return self._is_whole(key) or len(self._pending[key].spans) >= MOST_OF_A_TRACE

    def _too_many(self) -> list[Key]:
        """The oldest traces, as many as must be written for the rest to be within the bound."""
        left, found = self._waiting, []
        for key, pending in self._pending.items():
            if left <= MOST_SPANS:
                break
            found.append(key)
            left -= len(pending.spans)
        return found

    def _is_whole(self, key: Key) -> bool:
        """Whether the root is there, and every parent that a span names."""
        pending, known = self._pending[key], self._remembered.get(key, {})
        if not (pending.has_root or known):
            return False
        parents = {span.parent_id for span in pending.spans.values()}
        return all(parent is None or parent in pending.spans or parent in known for parent in parents)

    def _take(self, tenant: str | None, span: FinishedSpan) -> Key:
        key = (tenant, span.trace_id)
        pending = self._pending.setdefault(key, _Pending())
        self._waiting += span.span_id not in pending.spans
        pending.spans[span.span_id] = span
        pending.changed_at = self._clock()
        pending.has_root |= span.parent_id is None
        return key

    def _release(self, keys: Sequence[Key]) -> None:
        """Write these traces, several in one transaction, because a commit takes longer than a trace."""
        group: dict[Key, SpansRead] = {}
        spans = 0
        for key in keys:
            group[key] = read_spans(self._pending[key].spans.values(), self._remembered.get(key))
            spans += len(self._pending[key].spans)
            if spans >= _AT_ONCE:
                self._release_read(group)
                group, spans = {}, 0
        self._release_read(group)

    def _release_read(self, group: Mapping[Key, SpansRead]) -> None:
        finished = [self._priced(_of_tenant(run, key[0])) for key, read in group.items() for run in read.runs.values()]
        if finished:
            self._write(finished)
        for key, read in group.items():
            self._forget(key, read)

    def _forget(self, key: Key, read: SpansRead) -> None:
        """Count a trace that was written, and keep what its late spans need."""
        pending, is_known = self._pending.pop(key), key in self._remembered
        self._waiting -= len(pending.spans)
        self._remember(key, read.above)
        self._count(
            ignored=len(pending.spans) - len(read.runs),
            written=len(read.runs),
            late=len(read.runs) if is_known else 0,
            torn=int(not is_known and not pending.has_root),
        )

    def _remember(self, key: Key, handed: Mapping[str, SpanAbove]) -> None:
        before = len(self._remembered.get(key, ()))
        self._remembered[key] = handed
        self._remembered.move_to_end(key)
        self._known += len(handed) - before
        while len(self._remembered) > _REMEMBERED or self._known > MOST_SPANS:
            self._known -= len(self._remembered.popitem(last=False)[1])

    def _priced(self, run: Invocation) -> Invocation:
        if run.operation not in LLM_OPERATIONS or run.cost is not None or run.cached:
            return run
        price = self._prices.price(
            run.usage,
            provider=run.provider,
            request_model=run.request_model,
            response_model=run.response_model,
            at_unix_ns=run.start_unix_ns,
        )
        return run._replace(cost=price.cost, cost_source=price.source)

    def _count(self, **more: int) -> None:
        for name, number in more.items():
            self._counts[name] += number

    def _start(self) -> None:
        if self._thread is None and not self._stopped.is_set():
            thread = threading.Thread(target=self._tick, name="taskpilot_obs-traces", daemon=True)
            thread.start()  # before it is kept, so that a start that fails is tried again
            self._thread = thread

    def _tick(self) -> None:
        while not self._stopped.wait(_TICK_S):
            try:
                self.flush_quiet()
            except StoreError as error:
                log_failure("server", error)


def _of_tenant(run: Invocation, tenant: str | None) -> Invocation:
    """The tenant of the token, and IDs of that tenant alone: no tenant can take up the rows of another."""
    if tenant is None:
        return run
    return run._replace(
        tenant=tenant,
        invocation_id=_own_id(tenant, run.invocation_id),
        parent_id=None if run.parent_id is None else _own_id(tenant, run.parent_id),
    )


def _own_id(tenant: str, invocation_id: str) -> str:
    return sha256(f"{tenant}:{invocation_id}".encode("utf-8", "surrogatepass")).hexdigest()[:48]
