"""Passes the end of a span, and what it states of an LLM's answer, to its run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from taskpilot_obs import genai_dialects as dialects
from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, Status, note_sound_dropped

_NS_PER_S: Final = 1_000_000_000
_DEEPEST: Final = 16
_UNNAMED: Final = "_OTHER"


class SpanOutcome(NamedTuple):
    """How a span ended."""

    status: Status
    error_type: str | None = None
    error: BaseException | None = None
    """The exception itself, where it is known."""

    def is_failure(self) -> bool:
        """Whether it is an error that has a name: instrumentors call streams that are left `_OTHER`."""
        return self.status is Status.ERROR and self.error_type not in (None, _UNNAMED)


def outcome_of(span: ReadableSpan, before: BaseException | None) -> SpanOutcome:
    """How a span that ends now has ended.

    Most frameworks set no status when a task is cancelled or a generator closed, so the exception in flight decides.

    Args:
        span: the span.
        before: what was being handled when it began.
    """
    attributes = span.attributes or {}
    stated = dialects.first_of(attributes, ("error.type",)) or _recorded_exception(span)
    error_type = None if stated is None else str(stated)
    status = dialects.status_of(error_type, is_error=span.status.status_code is StatusCode.ERROR)
    flying = sys.exc_info()[1]
    if flying is None or flying is before:
        return SpanOutcome(status, error_type)
    if not isinstance(flying, Exception):
        return SpanOutcome(_interruption(flying), error=flying)
    if status is Status.SUCCESS or not _is_named(flying, error_type):
        return SpanOutcome(status, error_type)
    return SpanOutcome(status, error_type, _unwrapped(flying, span))


def end_with(run: ActiveInvocation, outcome: SpanOutcome, at_unix_ns: int) -> None:
    """End a run."""
    if outcome.error is not None:
        run.fail(outcome.error, at_unix_ns=at_unix_ns)
    else:
        run.end_as(outcome.status, error_type=outcome.error_type, at_unix_ns=at_unix_ns)


def write_answer(call: LlmInvocation, span: ReadableSpan, took: Mapping[str, object]) -> None:
    """Note what an LLM span states of the answer.

    Args:
        call: the call.
        span: its span.
        took: the usage that an inner layer stated; the span's own wins.
    """
    attributes = span.attributes or {}
    counts = dialects.counts_of(attributes) or took
    if counts:
        call.record_usage(**counts)
    write_request(call, span)
    call.record_answer(
        model=dialects.response_model_of(attributes),
        response_id=dialects.response_id_of(attributes),
        finish_reasons=dialects.finish_reasons_of(attributes),
    )
    if not {"input_audio_tokens", "output_audio_tokens"} & counts.keys():
        note_sound_dropped(call)


def write_request(call: LlmInvocation, span: ReadableSpan) -> None:
    """Note which model an LLM span asked, and the tier that it was charged at; what is known already stays."""
    attributes = span.attributes or {}
    if call.service_tier is None:  # frameworks above drop it
        call.record_answer(service_tier=dialects.service_tier_of(attributes))
    call.record_request(
        model=dialects.request_model_of(span.name, attributes), provider=dialects.provider_of(attributes)
    )


def write_stream(call: LlmInvocation, span: ReadableSpan) -> None:
    """Note what an LLM span states of a stream; what is known already stays."""
    attributes = span.attributes or {}
    scope = "" if span.instrumentation_scope is None else span.instrumentation_scope.name
    if dialects.is_streamed(attributes):
        call.set_streaming()
    first = dialects.first_token_s(attributes, scope)
    if first is not None and span.start_time is not None:
        call.first_token(at_unix_ns=span.start_time + int(first * _NS_PER_S))


def _interruption(error: BaseException) -> Status:
    return Status.ABANDONED if isinstance(error, GeneratorExit) else Status.CANCELLED


def _recorded_exception(span: ReadableSpan) -> object:
    for event in reversed(span.events):
        if event.name == "exception" and event.attributes is not None:
            return event.attributes.get("exception.type")
    return None


def _is_named(error: BaseException, error_type: str | None) -> bool:
    """Whether a span's error is this exception, or what it wraps, and not another one that passes by."""
    name = (error_type or "").rpartition(".")[2]
    if not name[:1].isupper():
        return True  # no class: a code such as `server_error` or 500
    return any(name == type(each).__name__ for each in _causes(error))


def _unwrapped(error: BaseException, span: ReadableSpan) -> BaseException:
    """The provider's exception, where the framework of this span hides it."""
    scope = "" if span.instrumentation_scope is None else span.instrumentation_scope.name
    wrappers = dialects.quirk_of(scope).wrappers
    return next((each for each in _causes(error) if type(each).__name__ not in wrappers), error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    for _ in range(_DEEPEST):
        if at is None:
            return
        yield at
        at = at.__cause__
