"""Results that are only beginning: coroutines, generators, and responses of web frameworks with a streamed body.

A run that returns one goes on until its last step, because the work, its cost and its failure come then. Responses are
known by the attribute that holds their body, so that no framework is imported: `body_iterator` of Starlette, FastAPI
and sse-starlette, `response` of Werkzeug, Flask and Quart, `streaming_content` of Django.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskpilot_obs._recording.generators import drive, wrap_async_generator
from taskpilot_obs.records import SUCCESS

if TYPE_CHECKING:
    from taskpilot_obs._recording.invocation import ActiveInvocation

R = TypeVar("R")
_LAZY: Final = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})
_PLAIN: Final = frozenset({str, dict, list, tuple, int, float, bool, bytes, set})
"""Results of these very classes are finished; asking them first keeps them cheap."""


def is_unfinished(result: object) -> bool:
    """Whether a result is a coroutine, a generator, or a response whose body is still to be made."""
    kind = type(result)
    return kind not in _PLAIN and (kind in _LAZY or _body_attribute(result) is not None)


def _body_attribute(result: object) -> str | None:
    """The attribute that holds a streamed body; None where there is none. Runs no code of the object's class."""
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
    """Go on with a result that is only beginning, and end the run with its last step.

    Args:
        run: the run that returned it, current until now.
        result: what `is_unfinished` said yes to.

    Returns:
        A coroutine or generator in its place, or the very response, whose body is now followed.
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
        return wrap_async_generator(lambda: (run, _steps_async(body)))()
    return drive(run, _steps(body))


def _steps(body: Any) -> Generator[Any, Any, None]:
    """Any iterable as a generator, which passes its closing on."""
    try:
        yield from body
    finally:
        if not isinstance(body, GeneratorType) and hasattr(body, "close"):
            body.close()


async def _steps_async(body: Any) -> AsyncGenerator[Any, None]:
    """Any asynchronous iterable as a generator, which passes its closing on."""
    try:
        async for item in body:
            yield item
    finally:
        if hasattr(body, "aclose"):
            await body.aclose()


async def _await(run: ActiveInvocation, awaitable: Awaitable[R]) -> R:
    run.reattach()
    try:
        result = await awaitable
        run.end(SUCCESS, result)
    except BaseException as error:
        run.fail(error)
        raise
    return result
