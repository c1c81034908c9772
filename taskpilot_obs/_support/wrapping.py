"""Wrappers that look, to Python and to frameworks, like the function that they wrap."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

_KINDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE

F = TypeVar("F", bound=Callable[..., Any])


def of_the_kind_of(kind: Any, wrapper: F) -> F:
    """Return a plain function that `inspect` and frameworks treat as a function of the given kind.

    The body of a generator or coroutine function runs at its first step, perhaps in another request. The caller is
    known only at the call, so the wrapper has to be a plain function. Since Python 3.11 the flags of a code object tell
    its kind and an instruction of the code makes the generator, so a plain function may carry the flags.

    Args:
        kind: the function whose kind the wrapper imitates.
        wrapper: what runs at the call and returns the coroutine or generator.
    """
    code = wrapper.__code__
    flags = code.co_flags | (kind.__code__.co_flags & _KINDS)
    marked: Any = FunctionType(
        code.replace(co_flags=flags), wrapper.__globals__, wrapper.__name__, wrapper.__defaults__, wrapper.__closure__
    )
    return marked  # type: ignore[no-any-return]  # the function that was given, with other flags


def wraps(function: Callable[..., Any]) -> Callable[[F], F]:
    """`functools.wraps`, plus what it omits: defaults, the signature for `getfullargspec`, methods like `cache_info`.

    Args:
        function: what is wrapped: a function, a partial, or an object with `__call__`, as `lru_cache` and Celery make.
    """

    def finish(wrapper: F) -> F:
        functools.update_wrapper(wrapper, function)
        for name in ("__defaults__", "__kwdefaults__"):
            if (value := getattr(function, name, None)) is not None:
                setattr(wrapper, name, value)
        _state_signature(wrapper, function)
        if not inspect.isfunction(function):
            _hand_on_methods(wrapper, function)
        return wrapper

    return finish


def _state_signature(wrapper: Any, function: Any) -> None:
    """Keep the signature where `inspect.getfullargspec` looks, which does not follow `__wrapped__`."""
    try:
        wrapper.__signature__ = inspect.signature(function)
    except (TypeError, ValueError, NameError):  # a built-in without a signature, or an undefined annotation
        return


def _hand_on_methods(wrapper: Any, function: Any) -> None:
    """Copy the public methods of the wrapped object to the wrapper; properties are not read."""
    kind = function.__class__  # the class behind a lazy proxy, as Celery makes them
    for name in dir(kind):
        if name.startswith("__") or hasattr(wrapper, name):
            continue
        found = inspect.getattr_static(kind, name)
        if callable(found) or isinstance(found, classmethod | staticmethod):
            setattr(wrapper, name, getattr(function, name))
