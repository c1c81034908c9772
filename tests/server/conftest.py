"""Both engines for the tests of the server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from _postgres import Server, postgres_server
from _stored import new_database, sqlite_url, store_at

from taskpilot_obs.store import Store


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take as long as a loaded machine needs; httpx itself gives up after five seconds."""
    for name in ("get", "post", "request"):
        monkeypatch.setattr(httpx, name, partial(getattr(httpx, name), timeout=60))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def engine_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that does not exist yet, on each engine."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path_factory.mktemp("store"))
    return new_database(request.getfixturevalue("server"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store in a file."""
    with store_at(sqlite_url(tmp_path)) as opened:
        yield opened
