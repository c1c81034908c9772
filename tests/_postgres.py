"""A real PostgreSQL server on a free loopback port, stopped by its process id.

The programs are Debian's. The server runs in a directory of its own, as the user `postgres` where the tests run as
root, which PostgreSQL refuses. Where it is not installed the test is skipped with that reason, or fails where CI is set
to "true".
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0


def _program(name: str) -> str:
    found = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
    path = found[-1] if found else shutil.which(name)
    if path is None:
        reason = f"PostgreSQL's {name} is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def server_user() -> str | None:
    """Whose processes the servers are; None: the same user's as the tests."""
    return "postgres" if os.geteuid() == 0 else None


class Server:
    """One PostgreSQL server, that a test may kill and start again."""

    def __init__(self, home: Path, *, durable: bool) -> None:
        self.home = home
        self.data = home / "data"
        self.port = free_port()
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Where a client finds a database."""
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make the data directory."""
        command = [_program("initdb"), "-D", str(self.data), "-A", "trust", "-U", "tester", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, user=server_user())

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": str(self.home)}
        if not self._durable:
            settings["fsync"] = "off"
        command = [_program("postgres"), "-D", str(self.data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=server_user())
        self._wait()

    def _wait(self) -> None:
        probe = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + READY_WITHIN_S
        while subprocess.run(probe, check=False).returncode != 0:
            if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                pytest.fail(f"PostgreSQL did not start: {(self.home / 'log').read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server at once, as a crash would: its clients get no word."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Shut it down in order."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(STOP_WITHIN_S)
        self._process = None


def hand_over(home: Path) -> None:
    """Give a folder to the user that the servers run as."""
    user = server_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(home, entry.pw_uid, entry.pw_gid)


def free_port() -> int:
    """A port of the loopback that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[Server]:
    """A running server with an empty cluster.

    Args:
        durable: wait for the disk at each commit, as a server in production does.
    """
    _program("initdb")
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    hand_over(home)
    server = Server(home, durable=durable)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.kill()  # to shut down in order it would write out, for half a minute, what is deleted right after
        shutil.rmtree(home, ignore_errors=True)


_WAITED = re.compile(r"acquired (?:AccessShare|RowExclusive)Lock on relation .* after ([0-9.]+) ms")


@contextmanager
def lock_waits(server: Server, url: str) -> Iterator[list[float]]:
    """How long writers and readers waited for the lock of a table, in milliseconds; known at the end, by the log.

    Args:
        server: where the database is.
        url: of the database; sessions that begin later log every wait of over a millisecond.
    """
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("log_lock_waits = on", "deadlock_timeout = '1ms'"):
            connection.execute(text(f"ALTER DATABASE {engine.url.database} SET {setting}"))
    engine.dispose()
    log, waits = server.home / "log", list[float]()
    begin = log.stat().st_size
    yield waits
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(begin)
        waits.extend(float(found[1]) for found in map(_WAITED.search, lines) if found)
