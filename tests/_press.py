"""Ctrl-C at a line of one's choice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class Press:
    """Presses Ctrl-C when the n-th line of these functions begins, on this thread.

    Leave out functions that hold a lock by `with`: at its end a line begins at which no real Ctrl-C can come.
    """

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self._codes: set[CodeType] = set()
        for function in functions:
            self._add(function.__code__)
        self._left = 0

    def _add(self, code: CodeType) -> None:
        self._codes.add(code)
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                self._add(inner)

    @contextmanager
    def at(self, line: int) -> Iterator[None]:
        """Once within this block; what measures coverage goes on afterwards."""
        before = sys.gettrace()
        self._left = line
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    @property
    def pressed(self) -> bool:
        """Whether it came to that line."""
        return self._left == 0

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code not in self._codes:
            return None if event == "call" else self._trace
        self._left -= event == "line"
        if self._left or event != "line":
            return self._trace
        sys.settrace(None)
        raise KeyboardInterrupt
