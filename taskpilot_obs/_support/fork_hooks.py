"""Functions that run around every fork of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable


def around_forks(
    *,
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
    in_child: Callable[[], object] | None = None,
) -> None:
    """Call functions around every fork of this process; does nothing on Windows, which has no fork.

    Args:
        before: called before the fork, those registered last first.
        in_parent: called after the fork in the parent, in the order of registration.
        in_child: called after the fork in the child, in the order of registration.
    """
    if hasattr(os, "register_at_fork"):
        given = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
        os.register_at_fork(**{name: function for name, function in given.items() if function is not None})


def each_of(objects: Callable[[], Iterable[object]], method: str) -> Callable[[], None]:
    """A function that calls one method of each object there is at that time."""

    def call() -> None:
        for each in list(objects()):
            getattr(each, method)()

    return call
