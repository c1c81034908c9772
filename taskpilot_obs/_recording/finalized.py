"""Invocations that may never be told their end."""

from __future__ import annotations

import sys

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
        if not getattr(self, "started_ns", 0) or self.ended_ns or sys.is_finalizing():
            return
        self._token = None  # a finalizer runs in whatever context there is
        self.end(Status.ABANDONED)
