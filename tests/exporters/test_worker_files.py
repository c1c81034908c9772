"""The files of many processes, merged so that no counter goes down, whichever process dies when."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict

from taskpilot_obs.exceptions import SourceError
from taskpilot_obs.exporters.prometheus import worker_files
from taskpilot_obs.exporters.prometheus.multiprocess import Workers, workers
from taskpilot_obs.exporters.prometheus.worker_files import compact, exact_sum, locked, mark_namespace, never_less

NEVER = 2**22 + 7
"""Above any process ID that Linux gives."""

amounts = st.floats(min_value=0, max_value=1e15)


def write(directory: Path, kind: str, pid: int | str, values: dict[str, float], timestamp: float = 0.0) -> Path:
    path = directory / f"{kind}_{pid}.db"
    file = MmapedDict(str(path))  # type: ignore[no-untyped-call]  # it has no types
    for name, value in values.items():
        file.write_value(json.dumps([name, name, {}, "help"]), value, timestamp)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    return path


def collected(directory: Path) -> dict[str, float]:
    return {sample.name: sample.value for family in Workers(directory).collect() for sample in family.samples}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory whose process IDs are all seen from here."""
    mark_namespace(tmp_path)
    return tmp_path


@given(st.lists(amounts, min_size=1), st.randoms())
def test_a_sum_does_not_depend_on_the_order(values: list[float], random: Random) -> None:
    """However the directory lists its files, the same values have the same sum."""
    shuffled = values.copy()
    random.shuffle(shuffled)
    assert exact_sum(shuffled) == exact_sum(values)


@given(st.lists(amounts, min_size=1), st.lists(amounts))
def test_adding_up_never_lowers_a_sum(dead: list[float], living: list[float]) -> None:
    """What the dead left counts for no less once it is added up, to the last digit, and for hardly more."""
    before = exact_sum(dead + living)
    after = exact_sum([never_less(dead), *living])
    assert before <= after <= math.nextafter(math.nextafter(before, math.inf), math.inf)


@given(st.lists(st.integers(0, 2**40)))
def test_counts_stay_exact(dead: list[int]) -> None:
    """Whole numbers add up to themselves."""
    assert never_less(map(float, dead)) == sum(dead)


def test_infinities_do_no_harm() -> None:
    """An application's own metric may hold anything."""
    assert exact_sum([math.inf, 1]) == never_less([math.inf, 1]) == math.inf
    assert math.isnan(exact_sum([math.inf, -math.inf]))


def test_each_kind_is_combined_in_its_own_way(directory: Path) -> None:
    """Counters add up, gauges follow their mode, and gauges of the living go with their process."""
    for number, value in enumerate((2.0, 5.0, 3.0)):
        pid = NEVER + number
        for kind in ("counter", "gauge_sum", "gauge_max", "gauge_min", "gauge_livesum", "gauge_all"):
            write(directory, kind, pid, {kind: value})
        write(directory, "gauge_mostrecent", pid, {"gauge_mostrecent": value}, timestamp=10.0 - number)
    assert collected(directory) == {
        "counter": 10,
        "gauge_sum": 10,
        "gauge_max": 5,
        "gauge_min": 2,
        "gauge_mostrecent": 2,
        "gauge_all": 3,
    }
    left = {path.name for path in directory.glob("*.db")}
    assert left == {
        *(f"{kind}_dead.db" for kind in ("counter", "gauge_sum", "gauge_max", "gauge_min", "gauge_mostrecent")),
        *(f"gauge_all_{NEVER + number}.db" for number in range(3)),
    }


def test_a_process_that_was_waited_for(directory: Path) -> None:
    """`compact` trusts the caller that the process has ended, and adds to existing totals."""
    write(directory, "counter", "dead", {"c": 4})
    write(directory, "counter", os.getpid(), {"c": 1})
    path = write(directory, "counter", NEVER, {"c": 2, "d": 1})
    compact(directory, NEVER)
    compact(directory, NEVER)
    assert not path.exists()
    assert collected(directory) == {"c": 7, "d": 1}
    assert len(list(directory.glob("*.db"))) == 2


def test_processes_elsewhere_are_left_alone(directory: Path) -> None:
    """Where processes of another container write too, a process ID that is unknown here says nothing."""
    (directory / "taskpilot_obs.namespace-1").touch()
    path = write(directory, "counter", NEVER, {"c": 2})
    assert collected(directory) == {"c": 2}
    assert path.exists()


def test_other_identifiers_are_left_alone(directory: Path) -> None:
    """Files that are not named by a process ID are read and kept."""
    path = write(directory, "counter", "worker-one", {"c": 2})
    assert collected(directory)["c"] == 2
    assert path.exists()


def test_a_file_that_was_opened_a_moment_ago(directory: Path) -> None:
    """A file that is still empty causes no error."""
    (directory / f"counter_{os.getpid()}.db").touch()
    (directory / f"counter_{NEVER}.db").touch()
    write(directory, "counter", NEVER + 1, {"c": 2})
    assert collected(directory) == {"c": 2}


def test_what_a_killed_compaction_leaves(directory: Path) -> None:
    """A merge killed before its commit is repeated, one killed after it is finished; nothing counts twice."""
    write(directory, "counter", NEVER, {"c": 2}).rename(directory / f"counter_{NEVER}.db.claimed")
    write(directory, "counter", "dead", {"c": 9}).rename(directory / "counter_dead.db.new")
    assert collected(directory) == {"c": 2}
    write(directory, "counter", NEVER, {"c": 3}).rename(directory / f"counter_{NEVER}.db.claimed")
    write(directory, "counter", "later", {"c": 5}).rename(directory / "counter_dead.db.new")
    (directory / worker_files.COMMIT_NAME).touch()
    assert collected(directory) == {"c": 5}
    assert [path.name for path in directory.glob("counter*")] == ["counter_dead.db"]


@pytest.mark.parametrize("own", [False, True], ids=["opened the old file", "made a new one"])
def test_a_process_that_gets_a_dead_ones_id(directory: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """A process that is born with the ID while its predecessor's files are taken loses nothing."""
    pid = os.getpid()
    path = write(directory, "counter", pid, {"c": 2})
    answers: Iterator[bool] = itertools.chain([False], itertools.repeat(True))

    def lives(_pid: int) -> bool:
        alive = next(answers)
        if alive and own:
            write(directory, "counter", pid, {"c": 3})
        return alive

    monkeypatch.setattr(worker_files, "_lives", lives)
    assert collected(directory)["c"] == (5 if own else 2)
    assert path.exists()
    assert (directory / "counter_dead.db").exists() == own
    assert list(directory.glob("*.claimed")) == []


def test_somebody_elses_process_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may not be signalled exists."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert worker_files._lives(1)


def test_a_lock_that_is_never_given_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped while it holds the lock does not stop the others for good."""
    monkeypatch.setattr(worker_files, "LOCK_TIMEOUT_S", 0.02)
    with (directory / worker_files.LOCK_NAME).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SourceError, match="is one of them stopped"):
            collected(directory)
    assert collected(directory) == {}


def test_the_lock_is_waited_for(directory: Path) -> None:
    """The second process waits until the first is done."""
    code = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(0.2)
"""
    command = [sys.executable, "-c", code, str(directory / worker_files.LOCK_NAME)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with locked(directory):
            pass


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that was removed, or is named no more, is said to be so."""
    with pytest.raises(SourceError, match="cannot be locked"):
        collected(tmp_path / "gone")
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    with pytest.raises(SourceError, match="is not set any more"):
        workers()


def test_without_linux_there_is_one_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no namespaces of process IDs, all processes see each other."""

    def refuse(_path: Path) -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "readlink", refuse)
    assert worker_files._namespace_name() == "taskpilot_obs.namespace-0"
