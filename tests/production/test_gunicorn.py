"""gunicorn as it is run in production: real workers, recycled under load, scraped at random."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from _gunicorn import TESTS, WORKERS, get, gunicorn, is_ready, wait_until
from _servers import free_port
from prometheus_client.parser import text_string_to_metric_families

from taskpilot_obs.exporters.prometheus.multiprocess import Workers
from taskpilot_obs.gunicorn import child_exit, post_fork

REQUESTS, SCRAPES, CLIENTS = 2_000, 40, 8
RECYCLED_AFTER = 160
KINDS = 4
"""Files of a process: counters, histograms and two modes of gauges."""
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def answered(port: int, path: str = "/") -> str:
    """A request that is made until it is answered: uvicorn resets what it has accepted just before it is recycled."""
    while True:
        try:
            return get(port, path)
        except ConnectionError:
            time.sleep(0.01)


def scrape(port: int) -> Series:
    """Every series that may never go back."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answered(port, "/metrics"))
        if family.type in {"counter", "histogram"}
        for sample in family.samples
    }


def total(series: Series, name: str) -> float:
    return sum(value for (sample, _), value in series.items() if sample == name)


@pytest.mark.promise("workers-add-up")
@pytest.mark.parametrize(
    ("worker", "app"),
    [("sync", "wsgi"), ("gthread", "wsgi"), ("gevent", "wsgi"), ("uvicorn_worker.UvicornWorker", "asgi")],
)
@pytest.mark.parametrize("preload", [False, True], ids=["each-loads", "preload"])
def test_counters_never_go_back_and_are_exact(tmp_path: Path, worker: str, app: str, preload: bool) -> None:
    """4 workers, each recycled: counters never go back between scrapes, sums are exact, the directory is bounded."""
    options = [f"--worker-class={worker}", f"--max-requests={RECYCLED_AFTER}", "--max-requests-jitter=40"]
    options += ["--threads=4"] if worker == "gthread" else []
    options += ["--preload"] if preload else []
    served = gunicorn(tmp_path, *options, app=f"_observed_app:{app}", variables={"RAN": str(tmp_path / "ran")})
    with served as port, ThreadPoolExecutor(CLIENTS) as pool:
        answers: list[str] = []
        before = scrape(port)
        # A worker under gevent ends up to a second after its last request, and serves all comers meanwhile.
        while len(answers) < REQUESTS or (len(set(answers)) < 2 * WORKERS and len(answers) < 20 * REQUESTS):
            answers += pool.map(lambda _: answered(port), range(REQUESTS // SCRAPES))
            after = scrape(port)
            assert [key for key, value in before.items() if after.get(key, -1) < value] == []
            before = after
        time.sleep(1)  # other workers' records are at most 250 ms behind
        done = scrape(port)
        signals = json.loads(answered(port, "/signals"))
        files = list((tmp_path / "values").glob("*.db"))
    ran = (tmp_path / "ran").stat().st_size
    assert len(set(answers)) >= 2 * WORKERS, "too few workers were recycled to show anything"
    assert len(answers) == ran
    assert total(done, "agent_runs_total") == ran
    assert total(done, "agent_run_duration_seconds_count") == ran
    assert total(done, "workflow_runs_total") == ran
    assert signals["scope"] == "workers"
    assert signals["success_rate"] == 100
    assert signals["runs"]["success"] == ran
    assert len(files) <= KINDS * (WORKERS + 4)  # the master, and workers that are just being replaced
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_without_a_directory_it_says_so_once(tmp_path: Path) -> None:
    """Several workers without PROMETHEUS_MULTIPROC_DIR: one warning at the start, which says what to set."""
    served = gunicorn(tmp_path, app="_observed_app:wsgi", directory=False, variables={"RAN": str(tmp_path / "ran")})
    with served as port:
        get(port, "/")
    said = [line for line in (tmp_path / "log").read_text().splitlines() if "keeps its own metrics" in line]
    assert len(said) == 1
    assert "Set PROMETHEUS_MULTIPROC_DIR to an empty directory" in said[0]


def test_uvicorn_with_workers(tmp_path: Path) -> None:
    """Uvicorn's own workers answer for each other, and what they recorded is written when SIGTERM ends them at once."""
    port = free_port()
    (tmp_path / "values").mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "RAN": str(tmp_path / "ran"),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "values"),
        "TASKPILOT_OBS_AUDIT_LOG": str(tmp_path / "audit" / "audit.jsonl"),
    }
    command = [sys.executable, "-m", "uvicorn", f"--port={port}", "--workers=2", "_observed_app:asgi_flushing"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        wait_until(lambda: is_ready(port), server)
        before = scrape(port)
        for _ in range(10):
            for _ in range(20):
                answered(port)
            after = scrape(port)
            assert [key for key, value in before.items() if after.get(key, -1) < value] == []
            before = after
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    lines = [line for path in (tmp_path / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len([line for line in lines if json.loads(line).get("status") == "success"]) == 200
    samples = [sample for family in Workers(tmp_path / "values").collect() for sample in family.samples]
    assert sum(sample.value for sample in samples if sample.name == "agent_runs_total") == 200


def test_the_hooks_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the first of several workers warns; a directory that is gone costs a log line, and nothing else."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    server = SimpleNamespace(cfg=SimpleNamespace(workers=2))
    for age in (1, 2):
        post_fork(server, SimpleNamespace(pid=1, age=age))
    post_fork(SimpleNamespace(cfg=SimpleNamespace(workers=1)), SimpleNamespace(pid=1, age=1))
    assert len(caplog.records) == 1
    child_exit(server, SimpleNamespace(pid=1, age=1))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "gone"))
    child_exit(server, SimpleNamespace(pid=1, age=1))
    post_fork(server, SimpleNamespace(pid=1, age=1))
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
