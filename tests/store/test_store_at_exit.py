"""A store at the end of the interpreter, when Python 3.12 lets no thread be started any more."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from _postgres import postgres_server
from _stored import llm_call, new_database, sqlite_url, store_at
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store import Store, StoreExporter


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `Thread.start` does then, on any version of Python."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("at_exit")
def test_the_first_batch_of_a_process_that_ends_is_written(store: Store, url: str, tmp_path: Path) -> None:
    """Neither the thread that would sum up nor the one that would look for what waits on disk is needed for it."""
    exporter = StoreExporter(url, spool_dir=tmp_path / "spool", aggregate_every_s=60.0)
    for _ in range(2):
        exporter.export([llm_call()])
    exporter.shutdown(1.0)
    with store.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 2


@pytest.mark.usefixtures("at_exit")
def test_budgets_of_a_process_that_ends_are_made(url: str, tmp_path: Path) -> None:
    """The thread that would read their figures again is not needed any more; ClickHouse needs a store beside it."""
    team, kept_in = Budget("team", limit_usd=1), url
    with store_at(url) as store:
        if store.is_clickhouse:
            with pytest.raises(ConfigurationError, match=r"has no transactions.* budget_store="):
                build_recorder(budget_store=url, budgets=[team], registry=CollectorRegistry())
            kept_in = sqlite_url(tmp_path)
        recorder = build_recorder(store=url, budget_store=kept_in, budgets=[team], registry=CollectorRegistry())
        assert recorder.shutdown()
        (status,) = budget_status([team], store=kept_in)
    assert status.spent == 0


SHORT_LIVED = """
import sys
from taskpilot_obs import configure, flush, record_llm_call, shutdown
from taskpilot_obs.store import StoreExporter
configure(exporters=[StoreExporter(sys.argv[1], spool_dir="spool")])
for _ in range(int(sys.argv[2])):
    record_llm_call(model="gpt-4o", usage={"input_tokens": 1, "output_tokens": 1})
print(flush(float(sys.argv[3])))
shutdown(1)
"""


def short_lived(url: str, folder: Path, calls: int, within_s: float) -> str:
    """What a process that records so many calls says of its flush."""
    command = [sys.executable, "-c", SHORT_LIVED, url, str(calls), str(within_s)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True).stdout.strip()


def test_a_short_lived_process_writes_what_another_one_left(tmp_path: Path) -> None:
    """What a process left on disk while the server was away is in the store when the next one's flush returns."""
    with postgres_server() as server:
        url = new_database(server)
        with store_at(url):
            pass
        server.stop()
        assert short_lived(url, tmp_path, 5, 0.5) == "False"
        server.start()
        assert short_lived(url, tmp_path, 1, 60) == "True"
        with store_at(url) as store, store.reading() as connection:
            assert connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one() == 6
    assert list((tmp_path / "spool").iterdir()) == []
