"""pgbouncer before a PostgreSQL server, pooling by transaction, stopped by its process id."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from _postgres import Server, free_port, server_user

READY_WITHIN_S = 30.0


def _program() -> str:
    path = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(path).exists():
        reason = "pgbouncer is not installed (Debian: apt-get install pgbouncer)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@contextmanager
def transaction_pool(server: Server, *, connections: int = 3) -> Iterator[int]:
    """The port of a pooler that gives each transaction one of a few connections to the server.

    Args:
        server: the server behind it.
        connections: how many connections it opens for each database.
    """
    program, port = _program(), free_port()
    home = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    settings = home / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=tester\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n"
        f"unix_socket_dir =\nlogfile = {home / 'log'}\n"
    )
    user = server_user()
    for path in (home, settings):
        shutil.chown(path, user) if user else None
    process = subprocess.Popen([program, "-q", str(settings)], user=user)
    try:
        _wait(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(READY_WITHIN_S)
        shutil.rmtree(home, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="tester", dbname="postgres").close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"pgbouncer did not start: {error}")
            time.sleep(0.05)
        else:
            return
