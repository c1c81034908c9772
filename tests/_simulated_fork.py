"""Forks of simulated processes: the child has copies of all objects as they are, and one thread."""

from __future__ import annotations

import copy
import os
from typing import Any

from _simulated_disk import DiskFile
from _simulated_service import Service
from _simulated_threads import Process, scheduler

from taskpilot_obs._pipeline import lifecycle
from taskpilot_obs._support import fork


class Fork:
    """One fork, by a thread of the parent that does nothing else."""

    def __init__(self, parent: Service, pid: int) -> None:
        self._parent = parent
        self.child = Service(parent.machine, Process(pid))
        self.child.process.skew = parent.process.skew
        self._copies: dict[int, Any] = {}

    def happen(self) -> None:
        """Fork, as `os.fork` does: the library's hooks run before and after, in the parent and in the child."""
        run, pipeline = scheduler(), self._parent.pipeline
        pipeline._before_fork()
        self._copy()
        run.spawn(self.child.process, "main", self._begin, is_active=True)
        pipeline._after_fork_in_parent()

    def _copy(self) -> None:
        """Copy what the child inherits: everything but the machine, and the connections, which are the parent's."""
        parent, child, memo = self._parent, self.child, self._copies
        engine: Any = parent.exporter.store.engine
        numbers = parent.assembly.settler.outbox._numbers
        waiting = [each for batched in parent.pipeline.batched for each in (*batched._queue, *parent.pipeline.queue)]
        for shared in (parent.machine, parent.admission._prices, numbers, *parent.machine.budgets, *waiting):
            memo[id(shared)] = shared
        memo[id(engine)] = copy.copy(engine)
        inherited = parent.exporter, parent.admission, parent.pipeline, parent.assembly, parent.counters
        child.exporter, child.admission, child.pipeline, child.assembly, child.counters = copy.deepcopy(inherited, memo)
        self._inherit_files()

    def _inherit_files(self) -> None:
        """Descriptors of the child have the parent's files behind them, and their locks."""
        disk = self.child.machine.disk
        for batched in self.child.pipeline.batched:
            writer: Any = getattr(batched.exporter, "_writer", None)
            for name in ("_file", "_lock"):
                descriptor = getattr(writer, name, None)
                if isinstance(descriptor, int) and descriptor >= 0:
                    setattr(writer, name, os.dup(descriptor))
                    disk.opened(getattr(writer, name), self.child.process)
        file = self.child.exporter._spool and self.child.exporter._spool._file
        if isinstance(file, DiskFile):
            disk.opened(file, self.child.process)

    def _begin(self) -> None:
        """The hooks in the child; afterwards it may call, and stop."""
        child, memo = self.child, self._copies
        for renewable in list(fork._renewables):
            if id(renewable) in memo:
                fork.renew_in_child(memo[id(renewable)])
                memo[id(renewable)].after_fork()
        child.pipeline._after_fork_in_child()
        lifecycle.pipelines.add(child.pipeline)
        child.assembly.connect(child.pipeline)
        child.counters.take()
        child.counters.totals.clear()  # what the parent counted
        child.is_ready = True


def forked(parent: Service, pid: int) -> Service:
    """Fork a process, at the time that the scheduler chooses; the child."""
    made = Fork(parent, pid)
    scheduler().spawn(parent.process, "forking", made.happen, is_active=True)
    return made.child
