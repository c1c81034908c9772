"""The latest LLM calls of this process, from which statistics are answered where there is no telemetry store.

The exporter runs in the drainer, so that a caller pays nothing. It keeps one packed tuple a call, without anything that
a user or a model wrote, up to a count and an age. Packed calls take a third of the memory, and the garbage collector,
which also runs on the threads of callers, does not have to visit them. Only one thread exports at a time, and each
change or copy of the deque is a single C call; so readers need no lock, and a finalizer that runs meanwhile cannot
deadlock.
"""

from __future__ import annotations

import marshal
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple

from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs._support.guarded import run_to_completion
from taskpilot_obs._support.timestamps import EPOCH, MICROSECOND
from taskpilot_obs._telemetry.answers import WHOLE, Answers, Bins, By, HeldWindow, Key
from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs._telemetry.sketch import bin_of
from taskpilot_obs._telemetry.values import (
    NO_SOURCE,
    PRICING,
    SUCCESS,
    ended_us,
    milliseconds,
    money_of,
    tenant_of,
    texts,
    token_count,
)
from taskpilot_obs.records import LLM_OPERATIONS, NO_USAGE, Invocation, Pricing, Record, Source

MAX_CALLS: Final = 10_000
MAX_AGE: Final = timedelta(hours=24)
_FREE: Final = PRICING[Pricing.FREE]
_PARTIAL: Final = PRICING[Pricing.PARTIAL]
_SUMMED: Final = (
    *("input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "cache_write_tokens"),
    *("cost_nano", "cost_rest"),
)
"""Columns that `Counts` has the sum of, under the same name."""
_STATED: Final = ("prompt_name", "step_id", "task_id", "workflow_run_id", "thought_id", "experiment", "variant")
"""Names that the attributes of a call may state."""
_NAMES: Final = (
    *("organization_id", "user_id", "session_id", "agent", "workflow", "model_name", "provider", "request_id"),
    *_STATED,
)
_POSITIONS: Final = {name: position for position, name in enumerate(_NAMES)}


class HeldCall(NamedTuple):
    """One finished LLM call: what statistics count, under the names of the store's columns. None is unknown."""

    ended_us: int
    success: bool | None
    cached: bool | None
    pricing: int
    latency_ms: float
    time_to_first_token_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    cost_nano: int | None
    cost_rest: int | None
    failure: str | None
    """The category of an error, or else its class, or else the status."""
    names: tuple[str | None, ...]
    """What it can be found and grouped by, in the order of `_NAMES`."""


_unpacked: Final = partial(tuple.__new__, HeldCall)


def held_call(call: Invocation) -> HeldCall:
    """What is held of a finished LLM call."""
    usage = call.usage or NO_USAGE
    cost_nano, cost_rest = money_of(None if call.cached else call.cost)
    failure, *names = texts(
        call.error_category or call.error_type or call.status.value,
        tenant_of(call),
        call.user,
        call.session,
        call.agent,
        call.workflow,
        call.model,
        call.provider,
        call.request_id,
        *map(call.attributes.get, _STATED),
    )
    return HeldCall(
        ended_us(call),
        SUCCESS[call.status],
        call.cached,
        _FREE if call.pricing is None else PRICING[call.pricing],
        milliseconds(call.duration_s),
        None if call.ttft_s is None else milliseconds(call.ttft_s),
        token_count(usage.input_tokens),
        token_count(usage.output_tokens),
        token_count(usage.reasoning_tokens),
        token_count(usage.cache_read_tokens),
        token_count(usage.cache_write_tokens),
        cost_nano,
        cost_rest,
        failure,
        tuple(names),
    )


def _packed(call: HeldCall) -> bytes:
    try:
        return marshal.dumps(tuple(call))
    except ValueError:  # an attribute of a class derived from text or a number
        return marshal.dumps(tuple(map(_plain, call)))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return int.__int__(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _ended_us(packed: bytes) -> int:
    ended_us: int = marshal.loads(packed)[0]  # noqa: S302  packed by this process
    return ended_us


class CallWindow:
    """An in-memory exporter that holds the latest LLM calls.

    Args:
        clock: the time as nanoseconds since the Unix epoch.
        max_calls: how many calls it holds; older ones are forgotten.
        max_age: how long it holds a call after its end.
        source: the service and environment of this process, which a question may name.
        before: the window that it continues.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        max_calls: int = MAX_CALLS,
        max_age: timedelta = MAX_AGE,
        source: Source = NO_SOURCE,
        before: CallWindow | None = None,
    ) -> None:
        self._clock = clock
        self._max_calls = max_calls
        self._max_age = max_age
        self._source = {name: value or "" for name, value in source._asdict().items()}
        self.clear()
        if before is not None:
            self._take_over(before)
        renew_in_child(self)

    def clear(self) -> None:
        """Forget all calls."""
        self._calls: deque[bytes] = deque()  # marshalled in this process and read by it alone
        self._since_us = self._now_us()

    def _take_over(self, other: CallWindow) -> None:
        self._calls = other._calls.copy()
        self._since_us = other._since_us
        self._forget()

    def after_fork(self) -> None:
        """Forget the calls of the parent process."""
        self.clear()

    def _now_us(self) -> int:
        return self._clock() // 1_000

    def export(self, batch: Sequence[Record], /) -> None:
        """Hold the LLM calls of a batch. A Ctrl-C at the worst moment costs one call."""
        left = iter(batch)
        run_to_completion(lambda: self._keep(left))

    def _keep(self, left: Iterator[Record]) -> None:
        for record in left:
            if isinstance(record, Invocation) and record.operation in LLM_OPERATIONS:
                self._calls.append(_packed(held_call(record)))
        self._forget()

    def _forget(self) -> None:
        """Forget what is too many or too old, in the order in which calls came."""
        calls, oldest_us = self._calls, self._now_us() - self._max_age // MICROSECOND
        while calls and (len(calls) > self._max_calls or _ended_us(calls[0]) < oldest_us):
            self._since_us = max(self._since_us, _ended_us(calls.popleft()) + 1)

    def read(self) -> HeldCalls:
        """What is held now. Callable from any thread."""
        since_us = max(self._since_us, self._now_us() - self._max_age // MICROSECOND)
        calls = list(map(_unpacked, map(marshal.loads, self._calls.copy())))
        held = HeldWindow(EPOCH + since_us * MICROSECOND, len(calls), self._max_calls, self._max_age)
        return HeldCalls(calls, held, self._source)


class HeldCalls:
    """The calls that a process held at one moment: a `CallSource`."""

    def __init__(self, calls: Iterable[HeldCall], held: HeldWindow, source: Mapping[str, str]) -> None:
        self._calls = calls
        self._source = source
        self.held = held

    def about(self, start: datetime, end: datetime, filters: Filters, /) -> AbstractContextManager[Answers]:
        """Answers about the calls that ended in [start, end) and pass the filters."""
        asked = dict(filters)
        is_here = all(asked.pop(name, own) == own for name, own in self._source.items())
        first, last = (start - EPOCH) // MICROSECOND, (end - EPOCH) // MICROSECOND
        found = [call for call in self._calls if first <= call[0] < last] if is_here else []
        for name, value in asked.items():
            position = _POSITIONS[name]
            found = [call for call in found if (call.names[position] or "") == value]
        return nullcontext(HeldAnswers(found, min(self.held.since, end) if start < self.held.since else None))


class HeldAnswers:
    """Sums over calls that this process holds, in the shape of the store's."""

    def __init__(self, calls: Sequence[HeldCall], incomplete_before: datetime | None) -> None:
        self._calls = calls
        self._incomplete_before = incomplete_before
        self._groups: dict[By, dict[Key, list[HeldCall]]] = {}

    def totals(self, by: By = WHOLE, /, keys: Sequence[Key] | None = None) -> dict[Key, Counts]:
        """What the calls add up to."""
        return {key: _counts_of(calls) for key, calls in self._grouped(by).items() if keys is None or key in keys}

    def costs(self, by: By = WHOLE, /) -> dict[Key, Decimal]:
        """What the calls cost, in USD."""
        return {key: counts.cost for key, counts in self.totals(by).items()}

    def bins(self, by: By = WHOLE, /, keys: Sequence[Key] | None = None) -> Bins:
        """How the durations of the calls are distributed."""
        found = Bins(defaultdict(Counter), defaultdict(Counter))
        for key, calls in self._grouped(by).items():
            if keys is None or key in keys:
                found.latency[key] = Counter(bin_of(call.latency_ms) for call in calls)
                first = [call.time_to_first_token_ms for call in calls if call.time_to_first_token_ms is not None]
                found.first_token[key] = Counter(map(bin_of, first))
        return found

    def errors(self, by: By = WHOLE, /) -> dict[Key, Counter[str]]:
        """How many calls failed, by type of error."""
        found = {
            key: Counter(call.failure or "" for call in calls if call.success is False)
            for key, calls in self._grouped(by).items()
        }
        return {key: failures for key, failures in found.items() if failures}

    def incomplete_before(self, _by: By = WHOLE, /) -> datetime | None:
        """The moment before which this process holds no calls."""
        return self._incomplete_before

    def _grouped(self, by: By) -> dict[Key, list[HeldCall]]:
        if by not in self._groups:
            self._groups[by] = _grouped(self._calls, by)
        return self._groups[by]


def _grouped(calls: Iterable[HeldCall], by: By) -> dict[Key, list[HeldCall]]:
    columns = [_POSITIONS[name] for name in by.dimensions]
    step_us = None if by.step is None else by.step // MICROSECOND
    raw: defaultdict[Any, list[HeldCall]] = defaultdict(list)
    key_of = itemgetter(*columns) if columns else lambda _names: ()
    for call in calls:
        key = key_of(call.names)
        raw[key if step_us is None else (call.ended_us // step_us, key)].append(call)
    found: defaultdict[Key, list[HeldCall]] = defaultdict(list)
    for key, members in raw.items():
        found[_key(key, len(columns), has_step=step_us is not None)] += members
    return dict(found)


def _key(raw: Any, columns: int, *, has_step: bool) -> Key:
    """The key of a group: no value is the empty text, and a single column is a tuple too."""
    if has_step:
        return (raw[0], *_key(raw[1], columns, has_step=False))
    return (raw or "",) if columns == 1 else tuple(value or "" for value in raw)


def _counts_of(calls: Sequence[HeldCall]) -> Counts:
    """What calls add up to: column by column, because the interpreter sums a whole column in C."""
    column: dict[str, Sequence[Any]] = dict(zip(HeldCall._fields, zip(*calls, strict=True), strict=True))
    free_and_cached = zip(column["pricing"], column["cached"], strict=True)
    sums = {name: sum(filter(None, column[name])) for name in _SUMMED}
    return Counts(
        requests=len(calls),
        successes=column["success"].count(True),
        failures=column["success"].count(False),
        priced=len(calls) - column["cost_nano"].count(None),
        cache_hits=column["cached"].count(True),
        refused=sum(pricing == _FREE and not cached for pricing, cached in free_and_cached),
        partly_priced=column["pricing"].count(_PARTIAL),
        latency_total_ms=sum(column["latency_ms"]),
        **sums,
    )
