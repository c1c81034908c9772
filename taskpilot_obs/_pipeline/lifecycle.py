"""Shuts pipelines down when the process ends, also in children of `multiprocessing`."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import TYPE_CHECKING, Protocol

from taskpilot_obs._support.fork_hooks import around_forks, each_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.util import Finalize


class Lasting(Protocol):
    """An object that must be shut down when the process ends: a pipeline."""

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Write queued records for at most `timeout_s` seconds."""


pipelines: weakref.WeakSet[Lasting] = weakref.WeakSet()


_before_exit: list[Callable[[], None]] = []


def before_exit(action: Callable[[], None]) -> None:
    """Run `action` at the end of the process, before queued records are written. It must not raise."""
    _before_exit.append(action)


def _at_exit() -> None:
    interrupt, timeout_s = None, None
    for action in _before_exit:
        action()
    for pipeline in list(pipelines):
        try:
            pipeline.shutdown(timeout_s)
        except KeyboardInterrupt as error:  # a second Ctrl-C: the user does not want to wait for the rest
            interrupt, timeout_s = error, 0.0
            pipeline.shutdown(timeout_s)
    if interrupt is not None:
        raise interrupt


def shut_down_with_child() -> None:
    """Register a finalizer once, because children of `multiprocessing` skip the interpreter's exit handlers."""
    running = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    if running is None or util is None or running.parent_process() is None:
        return
    registered = _finalizers.get(os.getpid())
    if registered is None or not registered.still_active():  # a new child drops those of its parent
        _finalizers[os.getpid()] = util.Finalize(None, _at_exit, exitpriority=_AFTER_THE_USERS)


_finalizers: dict[int, Finalize] = {}
"""By process ID, because a finalizer does nothing in a fork of the process that registered it."""
_AFTER_THE_USERS = -100


atexit.register(_at_exit)
around_forks(
    before=each_of(lambda: pipelines, "_before_fork"),
    in_parent=each_of(lambda: pipelines, "_after_fork_in_parent"),
    in_child=each_of(lambda: pipelines, "_after_fork_in_child"),
)
