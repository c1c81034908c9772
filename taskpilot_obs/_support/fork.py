"""Renews state in forked children: locks that another thread may hold, queues that the parent writes."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol


class Renewable(Protocol):
    """An object that a forked child must not share with its parent."""

    def after_fork(self) -> None:
        """Reset the object, in the child."""


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()
_functions: list[Callable[[], object]] = []


def renew_in_child(renewable: Renewable) -> None:
    """Call its `after_fork` in every forked child, for as long as it lives."""
    _renewables.add(renewable)


def call_in_child(function: Callable[[], object]) -> None:
    """Call a function in every forked child, before objects are renewed."""
    _functions.append(function)


def _renew() -> None:
    for function in _functions:
        function()
    for renewable in list(_renewables):
        renewable.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew)
