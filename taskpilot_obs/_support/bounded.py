"""Dictionaries that cannot grow for ever."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A cache that is cleared when full, so that keys made at run time (model names, classes) do not accumulate.

    Clearing makes entries in use be rebuilt, but avoids tracking recency, which would slow every look-up.

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
