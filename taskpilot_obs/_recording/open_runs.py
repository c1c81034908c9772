"""Runs that nothing will end any more, because the process ends."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from taskpilot_obs._pipeline.lifecycle import before_exit
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs.records import Status

if TYPE_CHECKING:
    from taskpilot_obs._recording.runtime import RecorderRuntime


def abandon_open_runs(runtime: RecorderRuntime | None = None) -> None:
    """End what still runs as `abandoned`.

    Args:
        runtime: of the recorder whose runs are meant; those of all recorders when left out.

    Runs are found by a walk over all objects, once in the life of a process: a list of them would cost every call.
    """
    for each in gc.get_objects():
        # By type: `isinstance` asks proxies for their `__class__`, which is the application's code.
        if issubclass(type(each), ActiveInvocation) and each.is_open and runtime in (None, each.callsite.runtime):
            each.end(Status.ABANDONED)


before_exit(abandon_open_runs)
