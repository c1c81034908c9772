"""Ends runs that are still open when the process ends."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from taskpilot_obs._pipeline.lifecycle import before_exit
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs.records import Status

if TYPE_CHECKING:
    from taskpilot_obs._recording.runtime import RecorderRuntime


def abandon_open_runs(runtime: RecorderRuntime | None = None) -> None:
    """End all open runs as `abandoned`.

    Args:
        runtime: the runtime of the recorder whose runs to end; by default the runs of all recorders.

    Runs are found by walking all objects once per process, because keeping a list would slow every call.
    """
    for each in gc.get_objects():
        # `type`, because `isinstance` reads `__class__` of proxies, which runs the application's code
        if issubclass(type(each), ActiveInvocation) and each.is_open and runtime in (None, each.callsite.runtime):
            each.end(Status.ABANDONED)


before_exit(abandon_open_runs)
