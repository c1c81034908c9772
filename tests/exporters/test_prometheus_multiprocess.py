"""Many processes with PROMETHEUS_MULTIPROC_DIR: real processes, real files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

WORKER = """
import os, sys
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.records import Invocation, Operation, Started, Status

def start(name):
    return Started(Operation.AGENT, "planner", "req", name, None, None, "planner", 1)

def end(name):
    done = Invocation(Status.SUCCESS, 0.3, Operation.AGENT, "planner", "req", name, None, None, "planner", 1)
    return done._replace(trace_id="a" * 32, span_id="b" * 16, sampled=True)

exporter = PrometheusExporter(service="shop")
for number in range(int(sys.argv[1])):
    exporter.export([start(str(number)), end(str(number))])
exporter.export([start("still running")])
"""
WAIT = """
os.write(1, b"counted\\n")  # one write, because two processes print it
sys.stdin.read()
"""
FORKING = (
    WORKER
    + """
child = os.fork()
if child == 0:
    exporter.export([start("child"), end("child"), start("runs on")])
"""
    + WAIT
)
READER = """
import sys
from taskpilot_obs.exposition import start_metrics_server
from urllib.request import Request, urlopen
from taskpilot_obs.exporters.prometheus import PrometheusExporter
exporter = PrometheusExporter(drain=lambda: print("drained", file=sys.stderr))
with start_metrics_server(0) as server:
    request = Request(server.url, headers={"Accept": sys.argv[1]})
    print(urlopen(request, timeout=10).read().decode(), end="")
"""


def environment_of(directory: Path) -> dict[str, str]:
    return os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": os.pathsep.join(sys.path)}


def run(code: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment_of(directory),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def worker(directory: Path, number: int, code: str = WORKER) -> None:
    done = run(code, directory, str(number))
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def living(directory: Path, number: int, code: str, processes: int = 1) -> Iterator[subprocess.Popen[str]]:
    """A worker that has counted and lives on."""
    command = [sys.executable, "-c", code, str(number)]
    with subprocess.Popen(
        command, env=environment_of(directory), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(processes):
            assert process.stdout.readline() == "counted\n"
        yield process


def scraped(directory: Path) -> dict[tuple[str, str], float]:
    """Sum of each sample by name and agent, as a real scrape of one worker sees it."""
    done = run(READER, directory, "text/plain")
    assert (done.returncode, done.stderr) == (0, "drained\n")
    sums: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(done.stdout):
        for sample in family.samples:
            key = (sample.name, sample.labels.get("agent", sample.labels.get("service", "")))
            sums[key] = sums.get(key, 0) + sample.value
    return sums


def test_a_scrape_of_one_worker_sees_them_all(tmp_path: Path) -> None:
    """Counters and histograms add up over dead and living workers, and the worker that answers drains first."""
    for number in (3, 5, 8):
        worker(tmp_path, number)
    sums = scraped(tmp_path)
    assert sums["agent_runs_total", "planner"] == 16
    assert sums["agent_run_duration_seconds_count", "planner"] == 16


def test_a_forked_child_writes_its_own_runs_and_nothing_twice(tmp_path: Path) -> None:
    """A child that is forked from a worker with open runs counts its own and no other."""
    with living(tmp_path, 4, FORKING, processes=2):
        sums = scraped(tmp_path)
    assert sums["agent_runs_total", "planner"] == 5
    assert sums["agent_active_runs", "planner"] == 2
    assert sums["taskpilot_obs_info", "shop"] == 1


def test_the_counters_of_workers_began_with_the_first(tmp_path: Path) -> None:
    """The start time of a directory is that of its first process, also once that one is dead and compacted."""
    began = time.time()
    worker(tmp_path, 1)
    second = time.time()
    worker(tmp_path, 1)
    scraped(tmp_path)
    assert began <= scraped(tmp_path)["taskpilot_obs_start_time_seconds", ""] <= second


def test_runs_of_a_dead_worker_leave_the_gauges(tmp_path: Path) -> None:
    """The gauges of a process that ended without a report are gone; its counters stay."""
    with living(tmp_path, 2, WORKER + WAIT) as process:
        assert scraped(tmp_path)["agent_active_runs", "planner"] == 1
        process.kill()
    sums = scraped(tmp_path)
    assert sums.get(("agent_active_runs", "planner"), 0) == 0
    assert sums["agent_runs_total", "planner"] == 2


def test_openmetrics_without_exemplars(tmp_path: Path) -> None:
    """In multi-process mode prometheus_client keeps no exemplars: sampled runs are counted, and none is exposed."""
    worker(tmp_path, 1)
    done = run(READER, tmp_path, "application/openmetrics-text; version=1.0.0")
    assert done.returncode == 0
    assert done.stdout.endswith("# EOF\n")
    assert "trace_id" not in done.stdout


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_a_directory_that_is_not_there_fails_at_construction(tmp_path: Path, missing: str) -> None:
    """Without its directory the exporter says what was given and what to do, before anything is counted."""
    environment = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": missing and str(tmp_path / missing),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", WORKER, "1"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "ConfigurationError: PROMETHEUS_MULTIPROC_DIR is" in done.stderr
    assert "create it before the service starts" in done.stderr
