"""Every n-th operation of every kind fails, until the work goes through untouched: what SQLite does to itself.

After each run the invariants of its scenario hold (`_operations.py`); nothing but the library's own errors comes out.
A run of all of them writes docs/faults.md: `make faults`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from _boundaries import BOUNDARIES, Wire, failing, forked
from _file_operations import Home
from _operations import SCENARIOS
from _postgres import postgres_server
from sqlalchemy import create_engine, make_url, text

from taskpilot_obs.store import Store, upgrade

MOST = 2_000
"""Operations of one kind in one scenario; more would be a scenario that never ends."""
DEADLINE_S = 180.0
"""Longer takes no run of a scenario, whatever fails; on an idle machine the longest takes seven seconds."""
WRITES = {"open", "write", "torn write", "short write", "read", "mkdir", "stat", "list", "flock", "memory"}
SQL = {"execute", "commit", "commit answer"}
WIRE = {"connect", "send", "receive"}
REACHED = {
    "audit log": WRITES | {"ftruncate", "fsync", "rename", "clock"},
    "spool": WRITES | {"truncate", "unlink"},
    "scrape": {"open", "read", "truncate", "rename", "unlink", "stat", "list", "flock", "memory", "fork"},
    "scrape over HTTP": {"thread"} | WIRE,
    "store": {"open", "stat", "memory"} | SQL,
    "ledger": {"open", "stat", "memory", "thread", "fork", "clock"} | SQL,
    "recorder": WRITES | SQL | {"fsync", "thread", "clock", "fork"},
    "store on PostgreSQL": SQL | WIRE,
    "ledger on PostgreSQL": SQL | WIRE,
}
"""Boundaries that the work of a scenario comes to by all means, so that a test which breaks nothing fails."""
QUICK = {
    ("audit log", "torn write"),
    ("spool", "short write"),
    ("scrape", "rename"),
    ("store", "commit answer"),
    ("ledger", "commit answer"),
    ("recorder", "thread"),
}
"""Those of every run of `make test`; `make test-full` runs all."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the store's tables, because making them takes a hundred statements."""
    path = tmp_path_factory.mktemp("tables") / "telemetry.db"
    with closing(Store(f"sqlite:///{path}", create=True)) as made:
        upgrade(made)
    return path


class Databases:
    """Databases of one server, each with the store's tables, behind a way that may break."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._numbers = count()
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self._wire = Wire(self._url.port or 0)
        self._do("CREATE DATABASE pattern TEMPLATE template0 ENCODING 'UTF8'")
        with closing(Store(self._at(self._url.port, "pattern"))) as pattern:
            upgrade(pattern)

    def close(self) -> None:
        self._wire.close()
        self._engine.dispose()

    @contextmanager
    def one(self, path: Path) -> Iterator[Home]:
        name = f"copy{next(self._numbers)}"
        self._do(f"CREATE DATABASE {name} TEMPLATE pattern")
        yield Home(path, self._at(self._url.port, name), self._at(self._wire.port, name))
        self._do(f"DROP DATABASE {name} WITH (FORCE)")

    def _at(self, port: int | None, name: str) -> str:
        return self._url.set(port=port, database=name).render_as_string(hide_password=False)

    def _do(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(statement))


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    """Copies of a database that has the tables."""
    with postgres_server() as server, closing(Databases(server.url())) as made:
        yield made


@contextmanager
def file_home(path: Path, tables: Path) -> Iterator[Home]:
    """A folder with a store in a file."""
    shutil.copy(tables, path)
    url = f"sqlite:///{path / 'telemetry.db'}"
    yield Home(path, url, url)


def cases() -> Iterator[Any]:
    """Every boundary in every scenario, once and from then on; those of a server where a scenario has one."""
    for scenario in SCENARIOS:
        for boundary in BOUNDARIES:
            for lasting in (False, True):
                if boundary in WIRE and boundary not in REACHED[scenario]:
                    continue
                if boundary == "fork" and lasting:  # a child in front of each operation says no more than one
                    continue
                is_quick = (scenario, boundary) in QUICK
                marks = () if is_quick else (pytest.mark.full, pytest.mark.timeout(3_600))
                how = "from then on" if lasting else "once"
                yield pytest.param(scenario, boundary, lasting, marks=marks, id=f"{scenario}: {boundary} {how}")


@pytest.mark.promise("every-operation")
# prometheus_client leaves a file open whose truncation fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("scenario", "boundary", "lasting"), list(cases()))
def test_every_nth_operation(
    scenario: str, boundary: str, tmp_path: Path, tables: Path, request: pytest.FixtureRequest, *, lasting: bool
) -> None:
    """The first, second, third … operation fails, until there is none that could."""
    operations = None
    try:
        operations = _operations_failed(scenario, boundary, tmp_path, tables, request, lasting=lasting)
        assert operations or boundary not in REACHED[scenario]
    finally:
        _keep(scenario, boundary, "from then on" if lasting else "once", operations)


def _keep(scenario: str, boundary: str, how: str, operations: int | None) -> None:
    """Append the count of runs with a fault, None for a case that did not pass, for scripts/faults_page.py."""
    path = os.environ.get("TASKPILOT_OBS_FAULT_COUNTS")
    if path is not None:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([scenario, boundary, how, operations]) + "\n")


def _operations_failed(
    scenario: str, boundary: str, tmp_path: Path, tables: Path, request: pytest.FixtureRequest, *, lasting: bool
) -> int:
    """Let each operation fail in a run of its own; returns how many there are."""
    for nth in range(1, MOST):
        path = tmp_path / str(nth)
        path.mkdir(mode=0o700)
        home = request.getfixturevalue("databases").one(path) if "PostgreSQL" in scenario else file_home(path, tables)
        with home as made:
            is_over = _failed(scenario, boundary, nth, made, lasting=lasting)
        shutil.rmtree(path)
        if is_over:
            return nth - 1
    pytest.fail(f"{scenario} has more than {MOST} operations of the kind {boundary}")


def _failed(scenario: str, boundary: str, nth: int, home: Home, *, lasting: bool) -> bool:
    """Let the n-th operation fail and check what has to hold; whether there was no n-th any more."""
    work, check, least = SCENARIOS[scenario]
    began = time.monotonic()
    forked.clear()
    try:
        with failing(boundary, nth, lasting=lasting) as gate:
            told = work(home)
        for child in forked:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "a forked child records and flushes"
        accepted = check(home, told)
        assert lasting or accepted >= least
        assert time.monotonic() - began < DEADLINE_S
    except BaseException as error:
        error.add_note(f"{boundary} number {nth} of {scenario} failed, {'and all after it' if lasting else 'alone'}")
        raise
    return not gate.has_failed
