"""Invocations that may never be told their end."""

from __future__ import annotations

import gc
import sys

from taskpilot_obs._pipeline.lifecycle import before_exit
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs.records import Status


def watch(run: ActiveInvocation) -> None:
    """From now on nobody promises to end it: watch for its last reference."""
    if type(run) is ActiveInvocation:
        run.__class__ = FinalizedInvocation


class FinalizedInvocation(ActiveInvocation):
    """An invocation that may never be told its end: it is closed as `abandoned` when the last reference to it goes.

    Not so its base, because a finalizer costs every call, and a function that is called always ends.
    """

    __slots__ = ()

    def __del__(self) -> None:
        if not _is_open(self) or sys.is_finalizing():
            return
        self._token = None  # a finalizer runs in whatever context there is
        self.end(Status.ABANDONED)


def abandon_open_runs(host: object = None) -> None:
    """End what still runs as `abandoned`, because nothing will end it any more.

    Args:
        host: the recorder whose runs are meant; all recorders when left out.

    Runs are found by a walk over all objects, once in the life of a process: a list of them would cost every call.
    """
    for each in gc.get_objects():
        # By type: `isinstance` asks proxies for their `__class__`, which is the application's code.
        if issubclass(type(each), ActiveInvocation) and _is_open(each) and host in (None, each.callsite.host):
            each.end(Status.ABANDONED)


def _is_open(run: ActiveInvocation) -> bool:
    return bool(getattr(run, "started_ns", 0)) and not run.ended_ns


before_exit(abandon_open_runs)
