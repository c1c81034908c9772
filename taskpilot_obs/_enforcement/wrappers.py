"""Wrap a function with its checks, which run before the call and before its result is returned. One form per kind."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypedDict, TypeVar

from taskpilot_obs._enforcement.enforcer import Streamed, note_withheld
from taskpilot_obs._enforcement.streams import CheckedAsyncCall, WatchedAsyncStream, WatchedStream
from taskpilot_obs._recording.generators import wrap_async_generator
from taskpilot_obs._recording.invocation import current_running
from taskpilot_obs.records import Stage
from taskpilot_obs.safety.checks import Checks
from taskpilot_obs.safety.guardrails import Mode

if TYPE_CHECKING:
    from taskpilot_obs._enforcement.enforcer import Enforcer
    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs.budgets.model import Budget


class CheckOptions(TypedDict, total=False):
    """The options of decorators that concern checks."""

    policies: Sequence[Any]
    """Policies: objects with `check(subject)`, functions of a subject, or those with options (`check_with`)."""
    guardrails: Sequence[Any]
    """Guardrails, in the same forms as policies."""
    mode: Mode
    """`monitor` (default) records what it would refuse, `enforce` refuses it."""
    buffer: bool
    """Whether a stream is held back until its end, so that its output can be withheld."""
    budget: Budget | None
    """For agents and workflows: what the LLM calls beneath them may cost."""


class SettledOptions(NamedTuple):
    """`CheckOptions` after validation."""

    checks: Checks | None
    buffer: bool
    budget: Budget | None = None


C = TypeVar("C", bound=Callable[..., Any])


class Work(NamedTuple, Generic[C]):
    """The callables behind an observed function."""

    usual: C
    """With the checks of the callsite."""
    checked: C
    """With those of the recorder too."""
    refuses: bool
    """Whether a check of the callsite is in enforce mode: it runs even while recording is off."""


def settle(
    *,
    policies: Sequence[Any] = (),
    guardrails: Sequence[Any] = (),
    mode: Mode = "monitor",
    buffer: bool = False,
    budget: Budget | None = None,
) -> SettledOptions:
    """Validate the check options of a callsite.

    Raises:
        ConfigurationError: something is not a check, or an option is wrong.
    """
    checks = Checks(policies, guardrails, mode)
    return SettledOptions(checks if checks.all else None, buffer, budget)


def with_checks(
    function: Callable[..., Any], kind: Callable[..., Any], enforcer: Enforcer, *, buffer: bool
) -> Callable[..., Any]:
    """The function with its checks; it must be called while its run is the current one.

    Args:
        function: the function to call.
        kind: the function whose flags declare its kind.
        enforcer: its checks.
        buffer: whether a stream is held back until its end, so that it can be withheld.
    """
    if inspect.iscoroutinefunction(kind):
        return _coroutine(function, enforcer)
    if inspect.isasyncgenfunction(kind):
        return lambda *args, **kwargs: CheckedAsyncCall(function, (args, kwargs), enforcer, buffer=buffer)
    if inspect.isgeneratorfunction(kind):
        return _generator(function, enforcer, buffer=buffer)
    return _plain(function, enforcer)


def refuse_unfit(function: Callable[..., Any], kind: Callable[..., Any], checks: Checks, *, buffer: bool) -> None:
    """Raise for checks that cannot work on such a function.

    Raises:
        TypeError: a check is asynchronous and the function is not, or it withholds output that
            has already been yielded.
    """
    name = getattr(function, "__qualname__", repr(function))
    is_stream = inspect.isgeneratorfunction(kind) or inspect.isasyncgenfunction(kind)
    waiting = checks.names_of_async()
    if waiting and not (inspect.iscoroutinefunction(kind) or inspect.isasyncgenfunction(kind)):
        raise TypeError(
            f"{name} is synchronous and cannot wait for the asynchronous check {waiting[0]!r}: make one of them like "
            "the other"
        )
    withholding = checks.names_that_withhold()
    if withholding and is_stream and not buffer:
        raise TypeError(
            f"{name} is a stream, and {withholding[0]!r} cannot withhold what has been yielded: use mode='monitor', or "
            "buffer=True to hold the stream back until its end"
        )


def _current() -> ActiveInvocation:
    return current_running.get()  # type: ignore[return-value]  # the decorator has just set it


def _plain(function: Callable[..., Any], enforcer: Enforcer) -> Callable[..., Any]:
    def asked(*args: Any, **kwargs: Any) -> Any:
        run = _current()
        enforcer.ask_in(run, args, kwargs)
        result = function(*args, **kwargs)
        if isinstance(result, CoroutineType):
            return _awaited(result, enforcer, run)
        if isinstance(result, GeneratorType):
            return _released(result, enforcer, run, buffer=False)
        if isinstance(result, AsyncGeneratorType):
            return wrap_async_generator(lambda: (None, WatchedAsyncStream(lambda: result, enforcer, run)))()
        enforcer.ask_out(run, result)
        return result

    return asked


async def _awaited(awaitable: Awaitable[Any], enforcer: Enforcer, run: ActiveInvocation) -> Any:
    result = await awaitable
    await enforcer.ask_out_async(run, result)
    return result


def _coroutine(function: Callable[..., Any], enforcer: Enforcer) -> Callable[..., Any]:
    async def asked(*args: Any, **kwargs: Any) -> Any:
        run = _current()
        await enforcer.ask_in_async(run, args, kwargs)
        return await _awaited(function(*args, **kwargs), enforcer, run)

    return asked


def _generator(function: Callable[..., Any], enforcer: Enforcer, *, buffer: bool) -> Callable[..., Any]:
    def asked(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        run = _current()
        enforcer.ask_in(run, args, kwargs)
        return (yield from _released(function(*args, **kwargs), enforcer, run, buffer=buffer))

    return asked


def _released(
    inner: Generator[Any, Any, Any], enforcer: Enforcer, run: ActiveInvocation, *, buffer: bool
) -> Generator[Any, Any, Any]:
    """Yield a stream: after its checks if it is buffered, before them otherwise."""
    if not enforcer.at(Stage.OUTPUT):
        return (yield from inner)
    if buffer:
        items = Streamed()
        try:
            result = _drain(inner, items)
        except BaseException:
            note_withheld(run, items)
            raise
        enforcer.ask_out(run, items)
        yield from items
        return result
    return (yield from WatchedStream(inner, enforcer, run))


def watched(inner: Any, enforcer: Enforcer, run: ActiveInvocation) -> Any:
    """A generator, asynchronous or not, whose items are checked as they pass; the object itself without checks.

    Args:
        inner: yields what has been handed out by the time that checks see it.
        enforcer: the checks.
        run: the run that the items are of.
    """
    if not enforcer.at(Stage.OUTPUT):
        return inner
    if isinstance(inner, GeneratorType):
        return WatchedStream(inner, enforcer, run)
    return WatchedAsyncStream(lambda: inner, enforcer, run)


def _drain(inner: Generator[Any, Any, Any], items: Streamed) -> Any:
    while True:
        try:
            items.append(next(inner))
        except StopIteration as end:
            return end.value
