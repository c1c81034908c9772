"""The numbers of series: checked where a server that lags may take over, and never tried for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _postgres import Server
from _stored import NOON, llm_call, new_database, sqlite_url, store_at, verdict
from sqlalchemy import Connection, event, select, text

from taskpilot_obs.store import Store, StoreExporter
from taskpilot_obs.store.rows import FEEDBACK_COMMENT, rows_of
from taskpilot_obs.store.tables import FEEDBACK
from taskpilot_obs.store.writer import Writer

MODELS = "SELECT c.model_name, s.model_name FROM llm_call_telemetry c LEFT JOIN llm_series s USING (series_id)"


@contextmanager
def without_series(store: Store) -> Iterator[None]:
    """Another session deletes the series before each transaction."""

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("DELETE FROM llm_series")

    event.listen(store.engine, "begin", begun)
    try:
        yield
    finally:
        event.remove(store.engine, "begin", begun)


def count(store: Store) -> int:
    with store.reading() as connection:
        return int(connection.execute(text("SELECT count(*) FROM llm_call_telemetry")).scalar_one())


def test_numbers_that_never_agree_leave_the_batch_in_the_spool(server: Server, tmp_path: Path) -> None:
    """Two tries, then the batch waits for a store whose series stay, and is written once."""
    url = new_database(server)
    with store_at(url):
        exporter = StoreExporter(url, spool_dir=tmp_path)
        exporter.store.require_usable()
        with without_series(exporter.store):
            exporter.export([llm_call()])
        assert count(exporter.store) == 0
        assert exporter.flush(30)
        assert count(exporter.store) == 1
        exporter.shutdown(5)


@pytest.mark.parametrize("models", [("old", "new"), ("new", "old")])
def test_a_number_that_another_series_of_the_batch_has_now_is_learned_again(
    server: Server, models: tuple[str, str]
) -> None:
    """A series that a replica lacks gets a new number where another one of the batch has taken its old one."""
    with store_at(new_database(server)) as store:
        writer = Writer(store)
        writer.write(rows_of([llm_call(request_model="old", response_model="old")]))
        with store.writing() as connection:
            connection.execute(text("TRUNCATE llm_series, llm_call_telemetry RESTART IDENTITY"))
        writer.write(rows_of([llm_call(request_model=model, response_model=model) for model in models]))
        with store.reading() as connection:
            found = connection.execute(text(MODELS)).all()
    assert sorted(tuple(row) for row in found) == [("new", "new"), ("old", "old")]


def test_series_named_at_run_time_do_not_accumulate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer remembers a bounded number of series, and gives each call its own, whether remembered or not."""
    monkeypatch.setattr("taskpilot_obs.store.writer._MAX_SERIES", 3)
    writer = Writer(store)
    for batch in (range(3), range(2, 4), range(1, 4), range(5)):
        names = [f"model-{number}" for number in batch]
        writer.write(rows_of([llm_call(request_model=name, response_model=name) for name in names]))
        assert len(writer._series) <= max(3, len(names))
    with store.reading() as connection:
        found = connection.execute(text(MODELS)).all()
    assert len(found) == 13
    assert all(own == named for own, named in found)


def lookups(url: str) -> int:
    """How often a second batch asks for series."""
    seen: list[str] = []
    with store_at(url) as store:
        writer = Writer(store)
        writer.write(rows_of([llm_call()]))
        event.listen(store.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        writer.write(rows_of([llm_call()]))
    return sum("FROM llm_series" in statement for statement in seen)


def test_a_file_is_not_asked_for_its_series_again(server: Server, tmp_path: Path) -> None:
    """A batch checks its series on a server, which may fail over, and not in a file of SQLite, which cannot."""
    assert lookups(new_database(server)) == 1
    assert lookups(sqlite_url(tmp_path)) == 0


def test_a_comment_in_the_batch_of_its_verdict_is_kept(store: Store) -> None:
    """A verdict and, in the same batch, the same with a comment are one row with the comment."""
    first = verdict(NOON)
    said = first._replace(time_unix_ns=first.time_unix_ns + 1_000, attributes={FEEDBACK_COMMENT: "thanks"})
    for _ in range(2):
        Writer(store).write(rows_of([first, said]))
        with store.reading() as connection:
            assert connection.execute(select(FEEDBACK.c.comment, FEEDBACK.c.revision)).all() == [("thanks", False)]
