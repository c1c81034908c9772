"""Results that are still to be produced: coroutines, generators, and web responses with a streamed body.

A run that returns such a result lasts until its last step, because work, cost and failure happen then. Responses
are recognised by the attribute that holds their body, so that no framework is imported: `body_iterator` of Starlette,
FastAPI and sse-starlette, `response` of Werkzeug, Flask and Quart, `streaming_content` of Django.
"""

from __future__ import annotations

from collections.abc import Awaitable
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskpilot_obs._recording.generators import drive, steps_of, steps_of_async, wrap_async_generator
from taskpilot_obs.records import SUCCESS

if TYPE_CHECKING:
    from taskpilot_obs._recording.invocation import ActiveInvocation

R = TypeVar("R")
_LAZY: Final = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})
_PLAIN: Final = frozenset({str, dict, list, tuple, int, float, bool, bytes, set})
"""Results of exactly these classes are finished; tested first, because they are the common case."""


def is_unfinished(result: object) -> bool:
    """Whether a result is a coroutine, a generator, or a response with a streamed body."""
    kind = type(result)
    return kind not in _PLAIN and (kind in _LAZY or _body_attribute(result) is not None)


def _body_attribute(result: object) -> str | None:
    """The attribute that holds a streamed body, or None. Runs no code of the object's class."""
    try:
        own = object.__getattribute__(result, "__dict__")
    except AttributeError:
        return None
    if type(own) is not dict:
        return None
    if "body_iterator" in own:
        return "body_iterator"
    names = {
        name for each in type(result).__mro__ for name in ("is_streamed", "streaming_content") if name in each.__dict__
    }
    if "streaming_content" in names:
        return "streaming_content"
    return "response" if "is_streamed" in names and _is_iterator(own.get("response")) else None


def _is_iterator(body: object) -> bool:
    return hasattr(type(body), "__next__")


def follow(run: ActiveInvocation, result: Any) -> Any:
    """Follow an unfinished result, and end the run with its last step.

    Args:
        run: the run that returned it, current until now.
        result: a result for which `is_unfinished` is true.

    Returns:
        A coroutine or generator in its place, or the response itself, whose body is now followed.
    """
    run.detach()
    if isinstance(result, CoroutineType):
        return _await(run, result)
    if isinstance(result, GeneratorType):
        return drive(run, result)
    if isinstance(result, AsyncGeneratorType):
        return wrap_async_generator(lambda: (run, result))()
    name = str(_body_attribute(result))
    setattr(result, name, _followed_body(run, getattr(result, name)))
    return result


def _followed_body(run: ActiveInvocation, body: Any) -> Any:
    if hasattr(type(body), "__aiter__"):
        return wrap_async_generator(lambda: (run, steps_of_async(body)))()
    return drive(run, steps_of(body))


async def _await(run: ActiveInvocation, awaitable: Awaitable[R]) -> R:
    run.reattach()
    try:
        result = await awaitable
        run.end(SUCCESS, result)
    except BaseException as error:
        run.fail(error)
        raise
    return result
