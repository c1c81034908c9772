"""Reads usage from exceptions of calls that were answered and billed, and failed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.providers.errors import causes_of
from taskpilot_obs.usage.read import read_response
from taskpilot_obs.usage.values import UNREAD, Reading

if TYPE_CHECKING:
    from taskpilot_obs._support.counters import InternalCounters

_CARRIERS: Final = (
    "total_usage",  # instructor: the sum of all attempts
    "completion",  # OpenAI: LengthFinishReasonError
    "last_completion",  # instructor
    "response",
    "body",
    "result",
    "raw_response",
    "llm_output",
)
_CONTENT: Final = "_content"
"""Attributes in which responses of httpx and requests keep a body that was read."""
_FIRST_FAILURE: Final = 400
_MAX_GROUP: Final = 8


def read_failure(
    error: BaseException, *, provider: str | None = None, counters: InternalCounters | None = None
) -> Reading:
    """Read the provider's response that an exception or one of its causes carries.

    Args:
        error: what the call raised.
        provider: the provider, in any spelling; by default recognised by the shape.
        counters: counts what could not be read (`taskpilot_obs_internal_errors_total{where="usage"}`).

    Returns:
        The first response that states usage, or else a reading without usage. Never raises.
    """
    with guarded("usage", counters):
        for answer in _answers(error):
            reading = read_response(answer, provider=provider, counters=counters)
            if reading.usage is not None or reading.cost is not None:
                return reading
    return UNREAD


def _answers(error: BaseException) -> Iterator[object]:
    for cause in _with_members(error):
        for name in _CARRIERS:
            found = getattr(cause, name, None)
            if found is not None:
                yield from _bodies(found)


def _with_members(error: BaseException) -> Iterator[BaseException]:
    for cause in causes_of(error):
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            yield from cause.exceptions[:_MAX_GROUP]


def _bodies(found: object) -> Iterator[object]:
    """The bodies to read: an SDK's object, a decoded body, or the body of an HTTP response that is not a refusal."""
    status = getattr(found, "status_code", None)
    if isinstance(status, int):
        content = getattr(found, "__dict__", {}).get(_CONTENT)
        if status < _FIRST_FAILURE and isinstance(content, bytes):
            yield content
        return
    yield found
