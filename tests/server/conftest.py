"""The engines for the tests of the server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
from _clickhouse import IN_FULL
from _postgres import Server, postgres_server
from _stored import new_store, sqlite_url, store_at

from taskpilot_obs.store import Store, clickhouse_sums


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take as long as a loaded machine needs; httpx itself gives up after five seconds."""
    for name in ("get", "post", "request"):
        monkeypatch.setattr(httpx, name, partial(getattr(httpx, name), timeout=60))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


NOT_ON_CLICKHOUSE = {
    "test_benchmark_runs_with_the_figures_of_their_arms",
    "test_benchmark_runs_are_for_tokens_of_every_tenant",
}


@pytest.fixture(params=["sqlite", "postgresql", IN_FULL], scope="module")
def engine_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store that does not exist yet, on each engine. One in ClickHouse sums up hours at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clickhouse_sums, "SETTLE", timedelta(0))
        yield new_store(request, tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def on_this_engine(request: pytest.FixtureRequest) -> None:
    """Skip what a store in ClickHouse lacks."""
    if request.function.__name__ in NOT_ON_CLICKHOUSE and "[clickhouse" in request.node.name:
        pytest.skip("not on ClickHouse: runs of benchmarks are in another store")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store in a file."""
    with store_at(sqlite_url(tmp_path)) as opened:
        yield opened
