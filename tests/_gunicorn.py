"""gunicorn on a free loopback port, for the length of a `with` block, and requests to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from _servers import free_port

TESTS = Path(__file__).parent
WORKERS = 4
CONFIG = """
from taskpilot_obs.exporters.prometheus.multiprocess import Workers
from taskpilot_obs.gunicorn import child_exit, post_fork
"""


def get(port: int, path: str) -> str:
    """The body of a successful answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, body
    return body


@contextmanager
def gunicorn(
    home: Path, *options: str, app: str, directory: bool = True, variables: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A running gunicorn of `WORKERS` workers; yields its port. What it says is in `log` beneath `home`.

    Args:
        home: its folder, which exists.
        options: further flags.
        app: what it serves, as `module:name`.
        directory: whether its workers share a directory of values.
        variables: added to its environment.
    """
    port = free_port()
    (home / "conf.py").write_text(CONFIG)
    (home / "values").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), **(variables or {})}
    if directory:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(home / "values")
    command = [sys.executable, "-m", "gunicorn", "-c", str(home / "conf.py"), f"--bind=127.0.0.1:{port}"]
    command += [f"--workers={WORKERS}", "--no-control-socket", *options, app]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
        try:
            wait_until(lambda: is_ready(port), server)
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def is_ready(port: int) -> bool:
    """Whether it can be scraped."""
    try:
        return bool(get(port, "/metrics"))
    except OSError:
        return False


def wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    """Wait for a condition, as long as the server runs."""
    deadline = time.monotonic() + 60
    while not ready():
        assert server.poll() is None, "gunicorn has ended"
        assert time.monotonic() < deadline, "gunicorn does not answer"
        time.sleep(0.05)
