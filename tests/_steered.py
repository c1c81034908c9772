"""The test's side of `_application.py`: starts that program, tells it what to do and reads what it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SUPPORT, RESEARCH, DIGEST = "support", "research", "digest"
"""The application's workflows."""


class Application:
    """The running service, as the test sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address: str = self._line()["metrics"]
        """`127.0.0.1:PORT`."""

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the application ended by itself; what it said is above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Have a command carried out; returns its answer once it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._line()


@contextmanager
def running_application() -> Iterator[Application]:
    """The service, started; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("_application.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Application(process)
    finally:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()  # the end of its input is the service's sign to leave
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
