"""Dictionaries that cannot grow for ever."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A cache that is emptied when it is full, so that keys made at run time (model names, classes) are not kept.

    Emptying costs a rebuild of what is in use, and needs no order of use, which would cost every look-up.

    Args:
        limit: how many entries it holds at most.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self.limit and key not in self:
            self.clear()
        super().__setitem__(key, value)
