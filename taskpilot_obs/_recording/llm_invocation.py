"""A running LLM call: usage, model, price, first token, retries, and whether the application's cache answered."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from taskpilot_obs._recording.attributes import plain_text
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs._recording.llm_outcome import (
    ask_for,
    canonical_model_of,
    is_unbilled,
    outcome_attributes,
    parse_amount,
)
from taskpilot_obs._recording.rollups import sum_of
from taskpilot_obs._recording.scope import current_admitted
from taskpilot_obs._recording.snapshots import start_of
from taskpilot_obs._support.event_loops import in_event_loop
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.providers.errors import error_category, is_refused, stated_category
from taskpilot_obs.providers.names import canonical
from taskpilot_obs.records import NO_ATTRIBUTES, Operation, Status
from taskpilot_obs.usage import StreamReader, Usage, from_counts, read_response
from taskpilot_obs.usage.failures import read_failure
from taskpilot_obs.usage.read import embedding_usage
from taskpilot_obs.usage.values import NOTHING_STATED, Stated, StatedError, from_usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence

    from taskpilot_obs._recording.callsite import LlmCallsite
    from taskpilot_obs._recording.invocation import Step
    from taskpilot_obs._recording.rollups import Totals
    from taskpilot_obs._recording.scope import CallReservation
    from taskpilot_obs._recording.spans import LiveSpan
    from taskpilot_obs.records import Invocation, Started
    from taskpilot_obs.usage import Reading

T = TypeVar("T")
_admitted = current_admitted.get

_MAX_SECONDS = 10**9
FROM_CALLER = "caller"
RESPONSE_ERROR = "response_error"
"""The `error_type` of a call whose response reports an error."""
_FIELDS = frozenset(Usage._fields)


class LlmListener(Protocol):
    """Notified when LLM calls begin and end, on the thread that runs them.

    Both methods must return at once and must not block: an abandoned call ends in a finalizer, which may run anywhere.
    Append to a `collections.deque`, or look something up. What they raise is counted and logged.
    """

    def llm_began(self, run: LlmInvocation, /) -> None:
        """An LLM call has begun."""

    def llm_ended(self, run: LlmInvocation, /) -> None:
        """An LLM call has ended; its usage, response ID and status are final."""


class LlmInvocation(ActiveInvocation):
    """One LLM call. Its methods do not raise: values that cannot be read stay unknown and are counted.

    Args:
        callsite: the callsite where it begins.
        parent: the run around it.
    """

    __slots__ = (
        *("_answered", "_listeners", "_priced", "_reader", "_refused", "_unread", "admitted"),
        *("billed_by", "cached", "cost", "cost_source", "dropped", "error_category", "finish_reasons"),
        *("first_token_ns", "left_to_calls", "price_gap", "provider", "request_model", "response_id", "response_model"),
        *("retries", "service_tier", "sums", "stated_cost", "stated_error", "streaming", "table_cost", "usage"),
        *("usage_inconsistent", "was_current"),
    )

    _listeners: tuple[LlmListener, ...]

    callsite: LlmCallsite

    def __init__(self, callsite: LlmCallsite, parent: ActiveInvocation | None) -> None:
        super().__init__(callsite, parent)
        runtime = callsite.runtime
        if not callsite.priced and runtime.enabled:
            prices = runtime.prices
            prices.warm_up()  # loads the price table, off this thread
            callsite.priced = prices.ready
        self.admitted: CallReservation | None = None if runtime.limits is None else _admitted()
        self.provider = callsite.provider
        self.request_model: str | None = callsite.model
        self.response_model: str | None = None
        self.response_id: str | None = None
        self.finish_reasons: tuple[str, ...] = ()
        self.service_tier: str | None = None
        self.stated_error: StatedError | None = None
        self.usage: Usage | None = None
        self.usage_inconsistent = False
        self.cost: Decimal | None = None
        self.cost_source: str | None = None
        self.stated_cost: Decimal | None = None
        self.table_cost: Decimal | None = None
        self.price_gap: str | None = None
        self.billed_by: str | None = None  # the provider that the ID of the response proves
        self.dropped: frozenset[str] = frozenset()  # usage details that a framework may have dropped
        self.sums = 0  # calls whose usage an agent's result sums
        self.left_to_calls = False  # whether those calls are booked, so that the result is not
        self._answered = False
        self._refused = False
        self._listeners = ()
        self._priced = False
        self._reader: StreamReader | None = None
        self._unread: object = None
        self.cached: bool | None = None
        self.first_token_ns = 0
        self.streaming = False
        self.was_current = False  # whether code beneath finds it in its context
        self.retries = 0
        self.error_category: str | None = None

    def start(self) -> Self:
        """Start the clock, open the span and announce the start."""
        super().start()
        self._tell_listeners()
        return self

    def start_current(self, args: tuple[object, ...] = (), kwargs: Mapping[str, object] = NO_ATTRIBUTES) -> Self:
        """Start as the current run; arguments as for `ActiveInvocation.start_current`."""
        self.was_current = True
        super().start_current(args, kwargs)
        self._tell_listeners()
        return self

    def attach(self) -> Step:
        """Like `ActiveInvocation.attach`, which a layer calls around the request."""
        self.was_current = True
        return super().attach()

    def reattach(self) -> None:
        """Like `ActiveInvocation.reattach`, which a layer calls around the request."""
        self.was_current = True
        super().reattach()

    def _tell_listeners(self) -> None:
        """Announce the call to the LLM listeners; those listeners also get its end."""
        listeners = self.callsite.runtime.llm_listeners
        if not listeners or self.ended_ns:
            return
        self._listeners = listeners
        for listener in listeners:
            with guarded("llm_listener", self.callsite.runtime.counters):
                listener.llm_began(self)

    def is_announced_to(self, listener: LlmListener) -> bool:
        """Whether a listener learnt of the start, and will learn of the end."""
        return listener in self._listeners

    def set_arguments(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Record arguments, one of which may be the model; arguments as for `ActiveInvocation.set_arguments`."""
        super().set_arguments(args, kwargs)
        callsite = self.callsite
        if callsite.find_model is not None:
            ask_for(self, callsite, callsite.find_model(args, kwargs))

    # --- details from the caller--------------------------------------------------------------------------------------

    def record_response(self, response: object) -> None:
        """Read usage, model and finish reasons from a provider's response: an SDK's object, a dict, a message.

        With content capture, the response is kept as the output.
        """
        self.note_response(response)
        if not self.ended_ns and self.callsite.runtime.redactor is not None:
            self.observe_output(response)

    def note_response(self, response: object) -> None:
        """Read a response like `record_response`, and keep none of its content."""
        with guarded("record_response", self.callsite.runtime.counters):
            self.record_reading(self._read(response))

    def _read(self, response: object) -> Reading:
        return read_response(response, provider=self.provider, counters=self.callsite.runtime.counters)

    def read_later(self, response: object) -> None:
        """Like `record_response`, on the drainer's thread if neither a span nor a token limit needs the result now.

        The response is kept until then and must not be changed.
        """
        limits = self.callsite.runtime.limits
        limited = limits is not None and limits.count_tokens
        if self.span is not None or limited or self._listeners:
            self.note_response(response)
        elif not self.ended_ns:
            self._unread = response

    def record_reading(self, reading: Reading) -> None:
        """Record what was read from a response or a stream."""
        if not self.ended_ns:
            self._note_reading(reading)

    def note_dropped(self, *details: str) -> None:
        """State which fields of `Usage` a framework drops: if one has a price of its own, the cost is partial."""
        self.dropped = self.dropped.union(details)

    def note_gap(self, gap: str) -> None:
        """State why the cost is more than the price of the tokens: one of `semconv.PRICE_GAPS`."""
        if not self.ended_ns:
            self.price_gap = self.price_gap or gap

    def _note_reading(self, reading: Reading) -> None:
        self.stated_error = reading.error
        self._answered = self._answered or reading.error is None
        if reading.cached:
            self.cached = True
        self.stated_cost = reading.cost if reading.cost is not None else self.stated_cost
        self.price_gap = reading.gap or self.price_gap
        self.billed_by = reading.billed_by or self.billed_by
        if reading.usage is not None:
            self.usage = reading.usage
            self.usage_inconsistent = reading.inconsistent
            self.sums = reading.sums
        self.response_model = reading.model or self.response_model
        self.response_id = reading.response_id or self.response_id
        self.finish_reasons = reading.finish_reasons or self.finish_reasons
        self.service_tier = reading.service_tier or self.service_tier
        if self.provider is None and reading.provider is not None:
            self.provider = canonical(reading.provider)

    def record_usage(
        self,
        usage: object = None,
        output_tokens: object = None,
        /,
        *,
        service_tier: str | None = None,
        **counts: object,
    ) -> None:
        """Record the usage: `record_usage(150, 50)`, fields of `Usage` by name, or a provider's usage object as it is.

        A mapping with other names than those of `Usage`, and an SDK's usage object, are read as the provider's own:
        OpenAI's `prompt_tokens`, Anthropic's `input_tokens` beside `cache_read_input_tokens`, …

        Args:
            usage: all counts at once; a number is the input tokens.
            output_tokens: beside a number of input tokens, the output tokens.
            service_tier: `flex`, `priority`, `batch`, …: the tier charged, if the price depends on it.
            counts: the fields of `Usage`.
        """
        if self.ended_ns:
            return
        self.record_answer(service_tier=service_tier)
        is_whole = output_tokens is None and not isinstance(usage, int | float | Decimal)
        if is_whole and (usage is None or not counts):
            self.note_usage(usage, counts)
            return
        with guarded("record_usage", self.callsite.runtime.counters):
            if not (usage is None or isinstance(usage, int | float | Decimal)):
                self.note_usage(usage)
                raise ValueError("record_usage: a usage, or input and output tokens as numbers, but not both")
            numbers = {"input_tokens": usage, "output_tokens": output_tokens}
            stated = {name: tokens for name, tokens in numbers.items() if tokens is not None}
            self.usage, self.usage_inconsistent = from_counts(**{**counts, **stated})

    def note_usage(self, usage: object, counts: Mapping[str, object] = NO_ATTRIBUTES) -> None:
        """Record the usage; unlike `record_usage`, also of a call that has ended.

        Args:
            usage: all counts at once: a `Usage`, its fields as a mapping, or the provider's own usage.
            counts: without `usage`, the fields of `Usage` by name.
        """
        with guarded("record_usage", self.callsite.runtime.counters):
            if usage is None:
                self.usage, self.usage_inconsistent = from_counts(**counts)
            elif isinstance(usage, Usage):
                self.usage, self.usage_inconsistent = from_usage(usage)
            elif isinstance(usage, Mapping) and _FIELDS.issuperset(usage):
                self.usage, self.usage_inconsistent = from_counts(**usage)
            else:
                self._note_stated(usage)

    def _note_stated(self, usage: object) -> None:
        reading = self._read(usage)
        if reading.usage is None and self.operation is Operation.EMBEDDINGS:
            reading = reading._replace(usage=embedding_usage(usage))
        if reading.usage is None:
            raise ValueError(f"usage: given an object of type {type(usage).__name__}, which states no tokens")
        self._note_reading(reading)

    def record_model(self, model: str | None) -> None:
        """Record the model that answered, if the response does not name it; values other than text change nothing."""
        if not self.ended_ns and model is not None:
            self.response_model = plain_text(model) or self.response_model

    def set_cached(self, cached: bool) -> None:  # noqa: FBT001  a setter
        """State whether the application's own cache answered. A hit has no tokens and no cost.

        Other values count by their truth, so the result of `cache.get(key)` may be passed; it is not kept.
        """
        if not self.ended_ns:
            with guarded("set_cached", self.callsite.runtime.counters):
                self.cached = bool(cached)

    def set_cost(self, usd: Decimal | float | str) -> None:
        """State the cost in USD; it wins over the price table. Invalid amounts are ignored and counted."""
        if self.ended_ns:
            return
        with guarded("set_cost", self.callsite.runtime.counters):
            self.cost, self.cost_source, self._priced = parse_amount(usd), FROM_CALLER, True

    def leave_unpriced(self) -> None:
        """State that the cost does not follow from the usage; it is then unknown, and counted as such."""
        if not self.ended_ns:
            self._priced = True

    def record_request(self, *, model: str | None = None, provider: str | None = None) -> None:
        """Record the request, if the framework states it after the start; known values are kept.

        Args:
            model: the model asked for.
            provider: who serves it.
        """
        if self.ended_ns:
            return
        if self.request_model is None and model is not None:
            self.request_model = plain_text(model)
        if self.provider is None and provider is not None:
            self.provider = canonical(plain_text(provider))

    def record_answer(
        self,
        *,
        model: str | None = None,
        response_id: str | None = None,
        finish_reasons: Sequence[str] = (),
        service_tier: str | None = None,
    ) -> None:
        """Record details of the answer, if the response itself is not available.

        Args:
            model: the model that answered.
            response_id: the provider's identifier of the response.
            finish_reasons: why the model stopped, one for each choice.
            service_tier: the tier that the provider charged.
        """
        self.record_model(model)
        if self.ended_ns:
            return
        self.response_id = response_id or self.response_id
        self.finish_reasons = tuple(finish_reasons) or self.finish_reasons
        if service_tier is not None:
            self.service_tier = plain_text(service_tier).lower() or self.service_tier

    def set_streaming(self) -> None:
        """State that the response is a stream whose time of the first token is unknown."""
        if not self.ended_ns:
            self.streaming = True

    def first_token(self, *, at_unix_ns: int | None = None) -> None:
        """Record the arrival of a stream's first token; later calls change nothing.

        Args:
            at_unix_ns: when, in nanoseconds since the Unix epoch; now when left out.
        """
        if not self.first_token_ns and not self.ended_ns:
            self.first_token_ns = self._ticks(at_unix_ns) or self.callsite.runtime.now()
            self.streaming = True

    def first_token_after(self, seconds: float) -> None:
        """State the time to the first token where you have measured it; it wins over `first_token()`.

        Args:
            seconds: from the start of the call. Invalid ones (negative, NaN) are counted as internal errors.
        """
        if self.ended_ns:
            return
        self.streaming = True
        with guarded("first_token_after", self.callsite.runtime.counters):
            if not 0 <= seconds < _MAX_SECONDS:
                raise ValueError(f"first_token_after: {seconds!r} is not a duration in seconds")
            self.first_token_ns = self.started_ns + int(seconds * 1e9)

    def retry(self) -> None:
        """Count an attempt beyond the first."""
        if not self.ended_ns:
            self.retries += 1

    def stream(self, events: Iterable[T]) -> Iterator[T]:
        """Pass a provider's stream through, time its first token and read its usage.

        The call ends with the stream: as `abandoned` when the consumer stops reading, as failed when the stream does.
        """
        self.open_stream()
        try:
            for event in events:
                self.note_item(event)
                yield event
        except BaseException as error:
            self.fail_stream(error)
            raise
        self.finish_stream(None)

    async def astream(self, events: AsyncIterable[T]) -> AsyncIterator[T]:
        """Like `stream`, for an asynchronous stream."""
        self.open_stream()
        try:
            async for event in events:
                self.note_item(event)
                yield event
        except BaseException as error:
            self.fail_stream(error)
            raise
        self.finish_stream(None)

    def open_stream(self, *, ends_at_reason: bool = False) -> None:
        """Expect a stream; leaving the call before the stream has ended abandons it.

        Args:
            ends_at_reason: whether a stream that is closed behind its finish reason is whole.
        """
        self.streaming = True
        self._reader = StreamReader(self.provider, self.callsite.runtime.counters)
        self._reader.ends_at_reason = ends_at_reason

    def note_item(self, item: object) -> None:
        """Read one event of a stream."""
        with guarded("stream.event", self.callsite.runtime.counters):
            if self._reader is None:
                self.open_stream()
            if self._reader is not None and self._reader.feed(item) and not self.first_token_ns:
                self.first_token()
            if self.admitted is not None:
                self.admitted.note_streamed(item)
        super().note_item(item)

    def droppable(self) -> bool:
        """Whether the queue may drop it: not the end of a call for which budgets hold a reservation."""
        return super().droppable() and (self.admitted is None or not self.ended_ns)

    def finish_stream(self, result: object) -> None:
        """End as `success`, with the usage that the stream stated."""
        self._close_stream()
        super().finish_stream(result)

    def fail_stream(self, error: BaseException) -> None:
        """End with the exception of the stream, and the usage read before it."""
        reader = self._close_stream()
        if reader is not None and reader.ends_at_reason and self.finish_reasons and isinstance(error, GeneratorExit):
            super().finish_stream(None)
        else:
            super().fail_stream(error)

    def _close_stream(self) -> StreamReader | None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.is_empty:  # refused before its first event, it is not answered
            with guarded("stream.end", self.callsite.runtime.counters):
                self.record_reading(reader.reading())
        return reader

    def end(self, status: Status, result: object = None, at_ns: int = 0) -> None:
        """End the call, and count its tokens if they are limited; arguments as for `ActiveInvocation.end`."""
        listeners = () if self.ended_ns else self._listeners
        try:
            if result is not None:
                self.note_response(result)
        finally:  # a Ctrl-C during the reading must pass, and must not leave the call open
            limits = self.callsite.runtime.limits
            if limits is not None and not self.ended_ns:
                limits.after(self)
            super().end(self._as_answered(status), result, at_ns=at_ns)
        for listener in listeners:
            with guarded("llm_listener", self.callsite.runtime.counters):
                listener.llm_ended(self)

    def _as_answered(self, status: Status) -> Status:
        """The status, or `error` if the response reports one: gateways send errors with HTTP status 200."""
        error = self.stated_error
        if error is None or status is not Status.SUCCESS:
            return status
        self._note().error_type = RESPONSE_ERROR
        self.error_category = stated_category(error)
        return Status.ERROR

    def fail(self, error: BaseException, *, at_unix_ns: int | None = None) -> None:
        """End with the usage that a stream stated before it failed; arguments as for `ActiveInvocation.fail`."""
        self._close_stream()
        super().fail(error, at_unix_ns=at_unix_ns)

    def stop(self, *, at_unix_ns: int | None = None) -> None:
        """End as `success`, or as `abandoned` if a stream was left before its end."""
        if self._reader is None:
            super().stop(at_unix_ns=at_unix_ns)
            return
        self._close_stream()
        self.end(Status.ABANDONED, at_ns=self._ticks(at_unix_ns))

    def _note_stated_error(self, error_type: str, message: str | None) -> None:
        super()._note_stated_error(error_type, message)
        self.error_category = stated_category(StatedError(code=error_type, message=message or ""))

    # --- price and refusal -------------------------------------------------------------------------------------------

    def price(self) -> Decimal | None:
        """Return the cost in USD, computed once; None for a cache hit and if it is unknown."""
        if self.cached:
            return None
        if not self._priced:
            host = self.callsite.runtime
            with guarded("price", host.counters):
                stated = NOTHING_STATED
                if self.stated_cost is not None or self.price_gap is not None or self.dropped or self.sums:
                    stated = Stated(self.stated_cost, self.price_gap, self.dropped, self.sums)
                self.cost, self.cost_source, self.price_gap, self.table_cost = host.prices.price(
                    self.usage,
                    provider=self.billed_by or self.provider,
                    request_model=self.request_model,
                    response_model=self.response_model,
                    at_unix_ns=host.clock.unix_ns(self.started_ns),
                    service_tier=self.service_tier,
                    stated=stated,
                )
            self._priced = True  # set last, because an interrupted computation is repeated
        return self.cost

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in USD, once the usage is noted; None while it is unknown, and for a hit of a cache.

        Before the end of the call, and before its usage is noted, it is not worked out.
        """
        if self.usage is None and not self._priced and not self.ended_ns:
            return None
        return self.price()

    def _note_error(self, error: BaseException) -> None:
        counters = self.callsite.runtime.counters
        self.error_category = error_category(error, counters)
        if self.usage is None:
            found = read_failure(error, provider=self.provider, counters=counters)
            if found.usage is not None or found.cost is not None:
                self._note_reading(found._replace(error=self.stated_error))
        self._refused = is_refused(error, counters)

    def _is_refused(self) -> bool:
        """Whether the call is not billed because it was refused before an answer or a first token."""
        return self.left_to_calls or (not self._answered and is_unbilled(self, refused=self._refused))

    def _close_span(self, live: LiveSpan) -> None:
        if self.sums and live.recording:  # the spans alone decide, because the drainer sees the calls only later
            above = self._recording_span_above()
            self._decide_who_is_booked([*(live.below or ()), *((above and above.below) or ())])
        super()._close_span(live)

    def _write_outcome(self, live: LiveSpan) -> None:
        super()._write_outcome(live)
        live.set_all(outcome_attributes(self, self.price() if self._may_price_here() else self.cost))

    def _may_price_here(self) -> bool:
        """Whether this thread may compute the price: not if an event loop would wait for the table to load."""
        return self._priced or self.callsite.runtime.prices.ready or not in_event_loop()

    def _add_own(self, totals: Totals) -> None:
        if self.left_to_calls:
            totals.claim(self.sums, self.usage)
            return
        if self.cached:
            totals.add_llm_call(None, None, priced=True)
        else:
            refused = self.usage is None and self._is_refused()
            totals.add_llm_call(self.usage, self.cost, priced=self.cost is not None or refused)
        if self.sums:
            totals.claim(1, None if self.cached else self.usage)

    def _freeze_start(self) -> Started:
        return start_of(self, self.request_model, self.provider)

    def _decide_who_is_booked(self, booked: Sequence[Totals]) -> None:
        """Leave the sum that an agent's result states to its calls, if those are booked beneath or beside it."""
        self.left_to_calls = not self.cached and sum_of(booked).accounts_for(self.sums, self.usage)

    def _freeze_end(self, llm_call: tuple[object, ...] = ()) -> Invocation:
        if self._unread is not None:
            with guarded("record_response", self.callsite.runtime.counters):
                self._note_reading(self._read(self._unread))
                self.status = self._as_answered(self.status)
            self._unread = None
        if self.sums:
            above = self._forget_ended_ancestors()
            booked = (None if run is None else run.totals for run in (self, above))
            self._decide_who_is_booked([totals for totals in booked if totals is not None])
        self.price()
        free = self.cached is True or self.left_to_calls
        begun = self.begun
        if begun.request_model != self.request_model or begun.provider != self.provider:
            self.begun = begun._replace(request_model=self.request_model, provider=self.provider)
        llm_call = (
            self.error_category,
            None if free else self.usage,
            self.usage_inconsistent and not free,
            None if free else self.cost,
            None if free or self.cost is None else self.cost_source,
            self.response_model,
            self.streaming,
            self.cached,
            (self.first_token_ns - self.started_ns) / 1e9 if self.first_token_ns else None,
            self.retries,
            self._is_refused(),
            None if free or self.cost is None else self.price_gap,
            None if free else self.table_cost,
            canonical_model_of(self.callsite, self.request_model, self.response_model),
            None if self.admitted is None else self.admitted.reservation_id,
        )
        return super()._freeze_end(llm_call)
