"""`taskpilot-obs serve` and `taskpilot-obs token`, as processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
from _serving import bearer, fill, requests_of
from _stored import sqlite_url, store_at

PROGRAM = [sys.executable, "-c", "from taskpilot_obs.cli import main; main()"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=150)


def test_serve_tells_its_address_answers_and_ends_on_a_signal(tmp_path: Path) -> None:
    """On a free port, with tokens made by the command; SIGTERM ends it in order."""
    file = str(tmp_path / "tokens.toml")
    token = run("token", "create", "ops", "--role", "admin", "--tenant", "*", "--file", file).stdout.strip()
    assert "ops" in run("token", "list", "--file", file).stdout
    with store_at(sqlite_url(tmp_path)) as store:
        fill(store, requests_of("acme", 2))
    command = [*PROGRAM, "serve", "--store", sqlite_url(tmp_path), "--port", "0", "--tokens", file]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        url = process.stdout.readline().split()[-1].rstrip("/")
        found = httpx.get(f"{url}/v1/stats", params={"period": "3660d"}, headers=bearer(token), timeout=30)
        assert found.json()["requests"] == 4
        assert httpx.get(f"{url}/v1/stats").status_code == 401
    finally:
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=30)
    assert complaints == ""
    assert run("token", "revoke", "ops", "--file", file).returncode == 0
    assert run("token", "revoke", "ops", "--file", file).returncode == 2


def test_a_wrong_start_is_a_sentence(tmp_path: Path) -> None:
    """Open to others without tokens, no store, a wrong role: exit 2 or 4 and what to do, no traceback."""
    with store_at(sqlite_url(tmp_path)):
        pass
    for arguments, word in (
        (("serve", "--store", sqlite_url(tmp_path), "--host", "::"), "--tokens"),
        (("serve", "--store", f"sqlite:///{tmp_path}/missing.db"), "no telemetry store"),
        (("serve", "--store", sqlite_url(tmp_path), "--trace-url", "https://jaeger.example/"), "{trace_id}"),
        (("serve", "--store", sqlite_url(tmp_path), "--tokens", f"{tmp_path}/missing.toml"), "cannot be read"),
        (("token", "create", "a", "--role", "king", "--tenant", "*", "--file", f"{tmp_path}/t.toml"), "viewer, writer"),
        (("mcp", "--store", sqlite_url(tmp_path), "--tokens", f"{tmp_path}/missing.toml"), "cannot be read"),
    ):
        done = run(*arguments)
        assert done.returncode in (2, 4), (arguments, done.stdout, done.stderr)
        assert word.split()[0] in done.stderr.replace("\n", " "), done.stderr
        assert "Traceback" not in done.stderr
