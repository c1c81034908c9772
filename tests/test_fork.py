"""What is renewed in forked children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import taskpilot_obs
from taskpilot_obs._support.fork import _functions, call_in_child, renew_in_child

_EACH = 3


class _Counting:
    """Counts its renewals, which may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.renewed = 0

    def after_fork(self) -> None:
        if self.fails:
            raise RuntimeError("not renewed")
        self.renewed += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_renewal_that_fails_keeps_no_other_from_being_done() -> None:
    """Functions and objects are renewed in a child whichever of the others raise."""
    broken = _Counting(fails=True)
    renewables = [_Counting(fails=number % 2 == 0) for number in range(2 * _EACH)]
    for renewable in renewables:
        renew_in_child(renewable)
    call_in_child(broken.after_fork)
    try:
        child = os.fork()
        if child == 0:
            os._exit(sum(renewable.renewed for renewable in renewables))
    finally:
        _functions.remove(broken.after_fork)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _EACH


def test_the_library_works_where_processes_cannot_fork() -> None:
    """On an interpreter without `os.register_at_fork`, as on Windows, a run is recorded and exposed."""
    code = """
import os
del os.fork, os.register_at_fork
from prometheus_client import generate_latest
from taskpilot_obs import golden_signals, observe_workflow
observe_workflow("task")(print)()
line = 'workflow_runs_total{status="success",workflow="task"} 1.0'
print(golden_signals().success_rate, line in generate_latest().decode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n100.0 True\n", "")


def test_one_module_registers_at_forks() -> None:
    """Every hook around a fork goes through `around_forks`, which knows where there are none."""
    package = Path(taskpilot_obs.__file__).parent
    found = [path.name for path in package.rglob("*.py") if "os.register_at_fork" in path.read_text()]
    assert found == ["fork_hooks.py"]
