"""Python imports this at its start when `taskpilot-obs run` has put its folder into PYTHONPATH."""

from __future__ import annotations

import logging
import os
import sys
from importlib import machinery, util
from pathlib import Path

HERE = str(Path(__file__).parent)


def leave_path() -> None:
    """Leave no trace for child processes that are not asked for, and find the environment's own `sitecustomize`."""
    sys.path[:] = [entry for entry in sys.path if entry != HERE]
    found = machinery.PathFinder.find_spec("sitecustomize")
    if found is not None and found.loader is not None:
        found.loader.exec_module(util.module_from_spec(found))


def start() -> None:
    """Observe this process; a failure is logged, because the application has to start."""
    names = tuple(filter(None, os.environ.get("TASKPILOT_OBS_INSTRUMENT", "").split(",")))
    try:
        from taskpilot_obs_opentelemetry import instrument

        instrument(*names)
    except Exception:
        logging.getLogger("taskpilot_obs").exception(
            "taskpilot-obs run: the application is not observed [not-instrumented]"
        )


leave_path()
start()
