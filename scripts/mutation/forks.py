"""Works in a fork of this process, which is ended with all that it started."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from scripts.mutation.live import NotAppliedError

MEMORY_BYTES: Final = 8 * 2**30


class ForkEndedError(Exception):
    """The fork ended without an answer."""


def in_fork(work: Callable[[], object], patience: float) -> Any:
    """What `work` returns in a fork of this process, by way of JSON.

    Raises:
        TimeoutError: The fork worked longer, or waited longer, and was ended with all that it started.
        NotAppliedError: `work` raised one.
        ForkEndedError: `work` raised anything else, or ended its process.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    child = os.fork()
    if child == 0:
        _work(work, folder, patience)
    try:
        _wait(child, patience)
        answer = folder / "answer.json"
        found = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {"ended": "without an answer"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    if "refused" in found:
        raise NotAppliedError(found["refused"])
    if "ended" in found:
        raise ForkEndedError(found["ended"])
    return found["answer"]


def _work(work: Callable[[], object], folder: Path, patience: float) -> None:
    """In the fork: leave the answer and end."""
    os.setsid()
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(patience), math.ceil(patience) + 5))
    silence = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):
        os.dup2(silence, each)
    try:
        answer = {"answer": work()}
    except NotAppliedError as failure:
        answer = {"refused": str(failure)}
    except BaseException as failure:  # noqa: BLE001 - a change may do anything
        answer = {"ended": f"by {type(failure).__name__}"}
    (folder / "new.json").write_text(json.dumps(answer), encoding="utf-8")
    (folder / "new.json").rename(folder / "answer.json")
    os._exit(0)


def _wait(child: int, patience: float) -> None:
    """Wait for the fork; time in which other programs had the processor does not count."""
    pause, idle, used = 0.002, 0.0, -1
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        before, used = used, _processor_use(child)
        idle = idle + pause if used == before else 0.0
        if idle > patience:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError
        time.sleep(pause)
        pause = min(pause * 1.2, 0.05)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise TimeoutError


def _processor_use(process: int) -> int:
    """Grows while the process works or could work; stays while it waits. Where there is no /proc, it always stays."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0
    return time.monotonic_ns() if fields[0] == "R" else int(fields[11]) + int(fields[12])
