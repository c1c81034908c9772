"""The engines for every test of the store: one file each, one real PostgreSQL server, and one embedded ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _postgres import Server, postgres_server
from _stored import new_store, store_at

from taskpilot_obs.store import Store


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("clickhouse", marks=pytest.mark.full)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that does not exist yet."""
    return new_store(request, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with store_at(url) as opened:
        yield opened
