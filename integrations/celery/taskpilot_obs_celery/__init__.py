"""taskpilot-obs in Celery: tasks work for the request that sent them, and are recorded as workflows.

What a child of the prefork pool recorded is written before it ends.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from celery import signals

import taskpilot_obs
from taskpilot_obs.semconv import WarningCode
from taskpilot_obs_celery.tasks import carry_requests, follow_tasks

if TYPE_CHECKING:
    from taskpilot_obs.integration import Recorder

__all__ = ["install"]

logger = logging.getLogger("taskpilot_obs")

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_PATIENCE_S = 5.0


def install(timeout: float = _PATIENCE_S, *, workflows: bool = True, recorder: Recorder | None = None) -> None:
    """Connect to Celery's signals; call it once, in the module of the Celery app. Harmless when repeated.

    Args:
        timeout: seconds that a child which ends may spend on writing.
        workflows: whether each task is recorded as a workflow of its name. False where the functions inside are
            decorated as workflows already.
        recorder: records the tasks; the default recorder when left out.
    """

    def write(**_: Any) -> None:
        # A child ends by `os._exit`, which runs no exit handlers: this is the last that it does.
        taskpilot_obs.shutdown(timeout)

    carry_requests()
    follow_tasks(recorder, workflows=workflows)
    signals.worker_process_shutdown.connect(write, weak=False, dispatch_uid="taskpilot_obs.write")
    signals.worker_init.connect(_warn, weak=False, dispatch_uid="taskpilot_obs.warn")


def _warn(sender: Any = None, **_: Any) -> None:
    """Say once, before the first child is forked, when the children keep their metrics apart."""
    children = getattr(sender, "concurrency", 1) or 1
    if children > 1 and _is_prefork(sender) and not os.environ.get(_DIRECTORY):
        logger.warning(
            "Celery forks %d children, and each keeps its own metrics, which no scrape sees. "
            "Set %s to an empty directory before the worker starts [%s]",
            children,
            _DIRECTORY,
            WarningCode.SEPARATE_METRICS,
        )


def _is_prefork(worker: Any) -> bool:
    return str(getattr(getattr(worker, "pool_cls", None), "__module__", "")).endswith("prefork")
