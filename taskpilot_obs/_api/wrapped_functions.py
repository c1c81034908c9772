"""How a function becomes an observed one: a wrapper for each kind of function, with one start and one end of a run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from types import coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

from taskpilot_obs._enforcement.enforcer import Enforcer
from taskpilot_obs._enforcement.wrappers import SettledOptions, Work, refuse_unfit, with_checks
from taskpilot_obs._recording.callsite import Callsite
from taskpilot_obs._recording.content import Parameters
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.generators import bind, drive, unbind, wrap_async_generator
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.sdk_streams import follow_stream
from taskpilot_obs._recording.unfinished import follow, is_unfinished
from taskpilot_obs._support.wrapping import of_the_kind_of, wraps
from taskpilot_obs.records import SUCCESS

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder

P = ParamSpec("P")
R = TypeVar("R")


class RunFactory(NamedTuple):
    """Makes the runs of a function from its callsite and their kind."""

    callsite: Callsite
    new: Callable[[Any, ActiveInvocation | None], ActiveInvocation]
    """`ActiveInvocation` or `LlmInvocation`."""


def decorate_with(function: Any, recorder: Recorder, runs: RunFactory, options: SettledOptions) -> Any:
    """A function of the same kind whose calls are runs.

    Args:
        function: a function, coroutine function, generator function, method, partial or callable object.
        recorder: where the runs are recorded.
        runs: makes the runs.
        options: what is asked before and after each call.

    Raises:
        TypeError: it is a class, or not callable, or a check cannot do its work on it.
    """
    if inspect.isclass(function):
        raise TypeError(
            f"{function.__qualname__} is a class: decorate the method that works, say {function.__qualname__}.run"
        )
    if isinstance(function, classmethod | staticmethod):
        return type(function)(decorate_with(function.__func__, recorder, runs, options))
    if not callable(function):
        raise TypeError(f"expected a function to decorate, got {type(function).__name__}")
    return _wrap(function, recorder, runs, options)


def _kind_of(function: Any) -> Any:
    """The function whose flags declare the kind: that of a partial, `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _wrap(function: Callable[..., Any], recorder: Recorder, runs: RunFactory, options: SettledOptions) -> Any:
    kind = _kind_of(function)
    runs.callsite.parameters = Parameters.of(function)
    for checks in (recorder.runtime.checks, options.checks):
        if checks is not None:
            refuse_unfit(function, kind, checks, buffer=options.buffer)
    if options.checks is not None:
        recorder.wiring.expect(options.checks)
    checked = with_checks(function, kind, Enforcer(recorder.runtime, options.checks, function), buffer=options.buffer)
    usual, refuses = (function, False) if options.checks is None else (checked, options.checks.refuse)
    work = Work(usual, checked, refuses)
    if inspect.iscoroutinefunction(kind):
        return _wrap_coroutine(function, work, runs)
    if inspect.isasyncgenfunction(kind):
        return _wrap_async_generator(function, work, runs)
    if inspect.isgeneratorfunction(kind):
        return _wrap_generator(function, work, runs)
    return _wrap_plain(function, work, runs)


def _wrap_plain(function: Callable[P, R], work: Work[Callable[P, R]], runs: RunFactory) -> Callable[P, R]:
    usual, checked, refuses = work
    callsite, new = runs
    runtime = callsite.runtime

    @wraps(function)
    def observed(*args: P.args, **kwargs: P.kwargs) -> R:
        if not runtime.enabled and not (refuses and runtime.enforcing):
            return function(*args, **kwargs)
        # By a function: cloudpickle takes wrappers by value, and cannot take a context variable.
        run = new(callsite, current_run()).start_current(args, kwargs)
        try:
            result = (checked if runtime.asks_checks else usual)(*args, **kwargs)
            if result is not None and is_unfinished(result):
                return cast(R, follow(run, result))
            if new is LlmInvocation and follow_stream(cast(LlmInvocation, run), result):
                return result
            run.end(SUCCESS, result)
        except BaseException as error:  # raised by the function, or a Ctrl-C that arrives at its end
            run.fail(error)
            raise
        return result

    return observed


def _wrap_coroutine(
    function: Callable[P, Coroutine[Any, Any, R]],
    work: Work[Callable[P, Coroutine[Any, Any, R]]],
    runs: RunFactory,
) -> Callable[P, Coroutine[Any, Any, R]]:
    usual, checked, refuses = work
    callsite, new = runs
    runtime = callsite.runtime

    @functools.wraps(function)
    async def awaited(run: ActiveInvocation, args: Any, kwargs: Any) -> R:
        run.start_current(args, kwargs)
        request = bind(run)
        try:
            result = await (checked if runtime.asks_checks else usual)(*args, **kwargs)
            if result is not None and is_unfinished(result):
                return cast(R, follow(run, result))
            if new is LlmInvocation and follow_stream(cast(LlmInvocation, run), result):
                return result
            run.end(SUCCESS, result)
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            if request is not None:
                unbind(request)
        return result

    def observed(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        if not runtime.enabled and not (refuses and runtime.enforcing):
            return function(*args, **kwargs)
        return awaited(new(callsite, current_run()), args, kwargs)

    return wraps(function)(of_the_kind_of(_kind_of(function), observed))


def _wrap_generator(
    function: Callable[P, Generator[Any, Any, R]],
    work: Work[Callable[P, Generator[Any, Any, R]]],
    runs: RunFactory,
) -> Callable[P, Generator[Any, Any, R]]:
    usual, checked, refuses = work
    runtime = runs.callsite.runtime

    @wraps(function)
    def stepped(run: ActiveInvocation, inner: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
        run.start()
        return (yield from drive(run, inner))

    kind = _kind_of(function)
    can_be_awaited = kind.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
    steps: Any = coroutine(stepped) if can_be_awaited else stepped

    def observed(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        if not runtime.enabled and not (refuses and runtime.enforcing):
            return function(*args, **kwargs)
        run = _called(runs, args, kwargs)
        stream: Generator[Any, Any, R] = steps(
            run, _stream_of(run, checked if runtime.asks_checks else usual, args, kwargs)
        )
        return stream

    return wraps(function)(of_the_kind_of(kind, observed))


def _wrap_async_generator(
    function: Callable[P, AsyncGenerator[Any, Any]],
    work: Work[Callable[P, AsyncGenerator[Any, Any]]],
    runs: RunFactory,
) -> Callable[P, AsyncGenerator[Any, Any]]:
    usual, checked, refuses = work
    runtime = runs.callsite.runtime

    def begun(run: ActiveInvocation, inner: AsyncGenerator[Any, Any]) -> tuple[Any, AsyncGenerator[Any, Any]]:
        return run.start(), inner

    stepped = wraps(function)(wrap_async_generator(begun))

    def observed(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        if not runtime.enabled and not (refuses and runtime.enforcing):
            return function(*args, **kwargs)
        run = _called(runs, args, kwargs)
        return stepped(run, _stream_of(run, checked if runtime.asks_checks else usual, args, kwargs))

    return wraps(function)(of_the_kind_of(_kind_of(function), observed))


def _called(runs: RunFactory, args: tuple[object, ...], kwargs: Mapping[str, object]) -> ActiveInvocation:
    """Create the run at the call, before the work begins, with the caller's parent, request and tenant."""
    run = runs.new(runs.callsite, current_run())
    if args or kwargs:
        run.set_arguments(args, kwargs)
    return run


def _stream_of(run: ActiveInvocation, function: Callable[..., R], args: Any, kwargs: Any) -> R:
    """Make the generator; arguments that do not fit the signature are recorded as a failed run."""
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        run.start().fail(error)
        raise
