"""Wrappers that work at the call and still count as the kind of function that they wrap."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

_KINDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE

F = TypeVar("F", bound=Callable[..., Any])


def of_the_kind_of(kind: Any, wrapper: F) -> F:
    """A plain function that `inspect` and frameworks take for a coroutine function, generator function and so on.

    The body of a generator or coroutine function runs at its first step, perhaps in another request. Who called it is
    known at the call only, so the wrapper has to be a plain function. Since Python 3.11 the flags of a code object tell
    its kind and an instruction of the code makes the generator, so a plain function may carry the flags.

    Args:
        kind: the function whose kind the wrapper shall have.
        wrapper: what runs at the call and returns the coroutine or generator.
    """
    code = wrapper.__code__
    flags = code.co_flags | (kind.__code__.co_flags & _KINDS)
    marked: Any = FunctionType(
        code.replace(co_flags=flags), wrapper.__globals__, wrapper.__name__, wrapper.__defaults__, wrapper.__closure__
    )
    return marked  # type: ignore[no-any-return]  # the function that was given, with other flags
