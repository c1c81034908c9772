"""Hooks for gunicorn: one line in `gunicorn.conf.py`.

from taskpilot_obs.gunicorn import child_exit, post_fork
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exporters.prometheus.worker_files import VARIABLE, compact
from taskpilot_obs.semconv import WarningCode

if TYPE_CHECKING:

    class Config(Protocol):
        """The part of gunicorn's configuration that the hooks read."""

        workers: int

    class Server(Protocol):
        """gunicorn's arbiter."""

        cfg: Config

    class Worker(Protocol):
        """One of its workers: `age` is 1 for the first."""

        pid: int
        age: int


logger = logging.getLogger("taskpilot_obs")


def post_fork(server: Server, worker: Worker) -> None:
    """Warn once, at the start, if several workers keep separate metrics. The fork itself needs no hook.

    Args:
        server: gunicorn's arbiter.
        worker: the worker that was forked.
    """
    if worker.age == 1 and server.cfg.workers > 1 and not os.environ.get(VARIABLE):
        logger.warning(
            "gunicorn runs %d workers, and each keeps its own metrics: a scrape sees one of them at random. "
            "Set %s to an empty directory before the service starts [%s]",
            server.cfg.workers,
            VARIABLE,
            WarningCode.SEPARATE_METRICS,
        )


def child_exit(server: Server, worker: Worker) -> None:  # noqa: ARG001  gunicorn calls it so
    """Merge the metric files of a worker that has ended into those of earlier ones, without its gauges.

    Args:
        server: gunicorn's arbiter.
        worker: the worker that has ended.
    """
    directory = os.environ.get(VARIABLE)
    if directory:
        with guarded("gunicorn.child_exit"):  # the next scrape that takes the lock merges the files
            compact(Path(directory), worker.pid)
