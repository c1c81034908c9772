"""Streams of provider SDKs that a decorated function returns: objects of their own, with a generator inside.

The caller gets the very object that the SDK made. What passes through its generator is read, so that the call ends with
the stream. A stream of another make is reported once, and its call has no usage.
"""

from __future__ import annotations

import logging
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from taskpilot_obs._recording.generators import drive, wrap_async_generator

if TYPE_CHECKING:
    from taskpilot_obs._recording.llm_invocation import LlmInvocation

logger = logging.getLogger("taskpilot_obs")

_INNER: Final = ("_iterator", "_raw_stream", "completion_stream", "generator")
"""Where the SDKs of OpenAI, Groq and Anthropic, LiteLLM and Mistral keep the generator of a stream."""
_STEPS: Final = ("__next__", "__anext__")
_MAX_REPORTED: Final = 100
_reported: set[type] = set()


def follow_stream(call: LlmInvocation, result: object) -> bool:
    """Go on with the stream that a function returned, and end the call with it; False for what is not a stream.

    Args:
        call: the current call; it is left here, and ends with the stream.
        result: what the function returned; its generator is replaced by one that passes everything on.
    """
    if not any(hasattr(type(result), step) for step in _STEPS):
        return False
    for name in _INNER:
        inner = getattr(result, name, None)
        followed = _followed(call, inner)
        if followed is not None and _replaced(result, name, followed):
            call.detach()
            call.open_stream()
            return True
    _report(type(result))
    return False


def _followed(call: LlmInvocation, inner: Any) -> Any:
    if isinstance(inner, GeneratorType):
        return drive(call, inner)
    if isinstance(inner, AsyncGeneratorType):
        return wrap_async_generator(lambda: (call, inner))()
    return None


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
        " missing; pass the stream through call.stream() inside `with track_llm(…) as call`",
        kind.__module__,
        kind.__qualname__,
    )
