"""Celery's own worker with a prefork pool that is recycled, over a broker in files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

celery = pytest.importorskip("celery")
pytest.importorskip("kombu.transport.filesystem")

TASKS, CHILDREN, RECYCLED_AFTER = 120, 2, 25
APP = """
import os
from pathlib import Path
from celery import Celery
from celery.signals import worker_init
from taskpilot_obs import configure, observe_agent
from taskpilot_obs.exposition import start_metrics_server
from taskpilot_obs_celery import install

HOME = Path(__file__).parent
app = Celery("shop", broker="filesystem://")
app.conf.update(
    broker_transport_options={name: str(HOME / "broker") for name in ("data_folder_in", "data_folder_out")}
    | {"control_folder": str(HOME / "control"), "polling_interval": 0.02},
    worker_prefetch_multiplier=1, task_ignore_result=True,
)
configure(audit_log=HOME / "audit" / "audit.jsonl")
install()

@worker_init.connect
def serve(**_):
    (HOME / "url").write_text(start_metrics_server(0).url)

@observe_agent("planner")
def plan():
    with open(HOME / "ran", "ab", buffering=0) as file:
        file.write(b".")

@app.task
def work():
    plan()
"""


@contextmanager
def worker(home: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", f"--concurrency={CHILDREN}"]
    command += [
        f"--max-tasks-per-child={RECYCLED_AFTER}",
        "--loglevel=INFO",
        "--without-gossip",
        "--without-mingle",
        *options,
    ]
    path = os.pathsep.join([str(home), *sys.path])
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=home, env=os.environ | {"PYTHONPATH": path} | environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(APP)
    for folder in ("broker", "control", "values"):
        (tmp_path / folder).mkdir()
    return tmp_path


def ask(home: Path, tasks: int) -> None:
    """Send the tasks, before a worker runs: kombu's broker in files loses what is read while it is written."""
    code = f"import tasks\nfor _ in range({tasks}): tasks.work.delay()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(home), *sys.path])}
    subprocess.run([sys.executable, "-c", code], cwd=home, env=environment, check=True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(url: str) -> float:
    lines = urlopen(url, timeout=10).read().decode().splitlines()  # noqa: S310  it is our own, on this host
    return sum(float(line.split()[-1]) for line in lines if line.startswith("agent_runs_total{"))


def test_recycled_children_write_what_they_recorded(home: Path) -> None:
    """Every task's run is in the metrics and once in the audit log, though the children that ran it are gone."""
    ran = home / "ran"
    ask(home, TASKS)
    with worker(home, PROMETHEUS_MULTIPROC_DIR=str(home / "values")):
        wait_for((home / "url").exists)
        wait_for(lambda: ran.exists() and ran.stat().st_size == TASKS)
        url = (home / "url").read_text()
        wait_for(lambda: runs(url) >= TASKS)
        assert runs(url) == TASKS
        assert len(list((home / "values").glob("*.db"))) < 4 * (CHILDREN + 4)
    lines = [line for path in (home / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    ends = [record["invocation_id"] for record in map(json.loads, lines) if record.get("status")]
    assert len(ends) == len(set(ends)) == 2 * TASKS  # the task's run, and the agent's inside
    assert len(list((home / "audit").glob("*.jsonl"))) > TASKS // RECYCLED_AFTER


def test_without_a_directory_it_says_so_once(home: Path) -> None:
    """Several children without PROMETHEUS_MULTIPROC_DIR: one warning at the start, which says what to set."""
    with worker(home):
        wait_for(lambda: (home / "url").exists() and "ready" in (home / "log").read_text())
    assert (home / "log").read_text().count("Set PROMETHEUS_MULTIPROC_DIR to an empty directory") == 1
