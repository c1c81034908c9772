"""Follows the stream objects of provider SDKs, which have a generator or a stream inside, that a function returns.

The caller gets the SDK's own object. The items of what is inside are read as they pass, so that the call ends with the
stream. Unknown stream types are reported once, and their calls have no usage.
"""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from taskpilot_obs._recording.generators import (
    close,
    close_async,
    drive,
    steps_of,
    steps_of_async,
    wrap_async_generator,
)
from taskpilot_obs._recording.invocation import current_running
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.semconv import WarningCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskpilot_obs._recording.llm_invocation import LlmInvocation

logger = logging.getLogger("taskpilot_obs")

_INNER: Final = ("_iterator", "_raw_stream", "completion_stream", "generator")
"""Attributes in which OpenAI's, Groq's, Anthropic's, LiteLLM's and Mistral's streams keep what they read."""
_STEPS: Final = ("__next__", "__anext__")
_MAX_REPORTED: Final = 100
_reported: set[type] = set()


def is_stream(result: object) -> bool:
    """Whether a result is read step by step."""
    return any(hasattr(type(result), step) for step in _STEPS)


def follow_stream(call: LlmInvocation, result: object, checked: Callable[[Any], Any] | None = None) -> bool:
    """Follow the stream that a function returned, and end the call with it; return False for other results.

    Args:
        call: the current call; it is detached here, and ends with the stream.
        result: the function's result; what it reads is replaced by a generator or stream that delegates to it.
        checked: puts checks around the generator.
    """
    if not is_stream(result):
        return False
    for name in _INNER:
        inner = _attribute(call, result, name)
        if isinstance(inner, GeneratorType | AsyncGeneratorType):
            followed, leave = _followed(call, inner, checked)
        elif is_stream(inner):
            followed, leave = _stream_within(call, inner, checked), None
        else:
            continue
        if _replaced(result, name, followed):
            call.detach()
            call.open_stream(ends_at_reason=isinstance(followed, _StreamWithin))
            _end_when_closed(call, _attribute(call, result, "response"), leave)
            return True
    _report(type(result))
    return False


def _attribute(call: LlmInvocation, owner: object, name: str) -> Any:
    """An attribute of an SDK's object; None where it has none, or reading it fails."""
    with guarded("stream", call.callsite.runtime.counters):
        return getattr(owner, name, None)
    return None


def _followed(call: LlmInvocation, inner: Any, checked: Callable[[Any], Any] | None) -> tuple[Any, Any]:
    """A generator that delegates to another one and ends the call, and what its checks do where it is left."""
    steps = inner if checked is None else checked(inner)
    is_plain = isinstance(inner, GeneratorType)
    followed = drive(call, steps) if is_plain else wrap_async_generator(lambda: (call, steps))()
    return followed, getattr(steps, "leave", None)


class _StreamWithin:
    """Stands for a stream object that another one reads; the call ends with it.

    The other one decides when it is at its end: LiteLLM closes Anthropic's before the last event has passed.

    Args:
        call: the call that it is the answer to.
        inner: the stream object.
        checked: puts checks around a generator.
    """

    def __init__(self, call: LlmInvocation, inner: Any, checked: Callable[[Any], Any] | None) -> None:
        self._call = call
        self._inner = inner
        self._checked = checked
        self._steps: Any = None

    def __getattr__(self, name: str) -> Any:
        """What else the other stream wants of it, such as its response."""
        return getattr(self._inner, name)

    def _started(self, generator_of: Callable[[Any], Any]) -> Any:
        if self._steps is None:
            self._steps, _ = _followed(self._call, generator_of(self._inner), self._checked)
        return self._steps

    def _leave(self) -> Any:
        """What is to be closed: the generator, or the stream itself where no step was taken."""
        if self._steps is None:
            self._call.fail_stream(GeneratorExit())
            return self._inner
        return self._steps


class _ReadByFor(_StreamWithin):
    def __iter__(self) -> _ReadByFor:
        return self

    def __next__(self) -> Any:
        return next(self._started(steps_of))

    def close(self) -> None:
        close(self._leave())


class _ReadByAsyncFor(_StreamWithin):
    def __aiter__(self) -> _ReadByAsyncFor:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._started(steps_of_async))

    async def aclose(self) -> None:
        await close_async(self._leave())


class _ReadByEither(_ReadByFor, _ReadByAsyncFor):
    """LiteLLM's own streams can be read in both ways."""


def _stream_within(call: LlmInvocation, inner: object, checked: Callable[[Any], Any] | None) -> _StreamWithin:
    by_for, by_async_for = (hasattr(type(inner), step) for step in _STEPS)
    kind = _ReadByEither if by_for and by_async_for else _ReadByFor if by_for else _ReadByAsyncFor
    return kind(call, inner, checked)


def _end_when_closed(call: LlmInvocation, response: Any, leave: Callable[[], Any] | None) -> None:
    """Let the call end when the HTTP response is closed before the stream's end, with its checks (`leave`).

    The SDKs' streams refer to themselves, so one that is left would end with the next garbage collection.
    """
    for name, closing in (("close", _closing), ("aclose", _closing_async)):
        original = _attribute(call, response, name)
        if callable(original):
            _replaced(response, name, closing(call, original, leave))


def _closing(
    call: LlmInvocation, original: Callable[[], object], leave: Callable[[], Any] | None
) -> Callable[[], object]:
    def close() -> object:
        try:
            return original()
        finally:
            if _is_left(call):
                if leave is not None and not iscoroutinefunction(leave):
                    leave()
                call.fail_stream(GeneratorExit())

    return close


def _closing_async(
    call: LlmInvocation, original: Callable[[], Awaitable[object]], leave: Callable[[], Any] | None
) -> Callable[[], Awaitable[object]]:
    async def aclose() -> object:
        try:
            return await original()
        finally:
            if _is_left(call):
                if iscoroutinefunction(leave):
                    await leave()
                call.fail_stream(GeneratorExit())

    return aclose


def _is_left(call: LlmInvocation) -> bool:
    """Whether its consumer closes it; otherwise a step of the stream does, at its end."""
    return current_running.get() is not call


def _replaced(result: object, name: str, followed: object) -> bool:
    try:
        setattr(result, name, followed)
    except (AttributeError, TypeError):
        return False
    return True


def _report(kind: type) -> None:
    if kind in _reported or len(_reported) >= _MAX_REPORTED:
        return
    _reported.add(kind)
    logger.warning(
        "taskpilot_obs: a decorated function returned a stream of %s.%s, which is not followed: the call's usage is"
        " missing; pass the stream through call.stream() inside `with track_llm(…) as call` [%s]",
        kind.__module__,
        kind.__qualname__,
        WarningCode.STREAM_NOT_FOLLOWED,
    )
