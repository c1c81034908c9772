"""A store at the end of the interpreter, when Python 3.12 lets no thread be started any more."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from _stored import llm_call, store_at
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.config import build_recorder
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
def test_budgets_of_a_process_that_ends_are_made(url: str) -> None:
    """The thread that would read their figures again is not needed any more."""
    team = Budget("team", limit_usd=1)
    with store_at(url):
        recorder = build_recorder(budget_store=url, budgets=[team], registry=CollectorRegistry())
        assert recorder.shutdown()
        (status,) = budget_status([team], store=url)
    assert status.spent == 0
