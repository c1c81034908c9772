"""What the library writes to ClickHouse in the format Native, read back by the real engine: chdb."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from _clickhouse import needs_clickhouse, new_clickhouse
from _stored import NOON, llm_call, store_at, task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, Float, SmallInteger, Table, select, text

from taskpilot_obs.exceptions import StoreError, StoreUnavailableError
from taskpilot_obs.store import Store
from taskpilot_obs.store.clickhouse_columns import Columns
from taskpilot_obs.store.rows import LLM_COLUMNS, Row, rows_of
from taskpilot_obs.store.spool import Spool
from taskpilot_obs.store.tables import LLM_CALLS, UtcTime, to_microseconds
from taskpilot_obs.store.writer import Writer

_KEPT = LLM_COLUMNS.index("telemetry_id")
_MONEY = LLM_COLUMNS.index("cost_nano")
_TEXTS = st.one_of(st.text(max_size=9), st.text("é", min_size=120, max_size=140), st.just("x" * 20_000))


@pytest.fixture(scope="module")
def filled() -> Iterator[Store]:
    with store_at(new_clickhouse()) as opened:
        yield opened


def _values(column: Column[Any]) -> st.SearchStrategy[Any]:
    kind = column.type
    if isinstance(kind, UtcTime):
        first, last = (datetime(year, 1, 2, tzinfo=UTC) for year in (1925, 2280))
        return st.integers(to_microseconds(first), to_microseconds(last))
    if isinstance(kind, Boolean):
        return st.booleans()
    if isinstance(kind, Float):
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind.python_type is int:
        bits = 15 if isinstance(kind, SmallInteger) else 31
        return st.integers(-(2**bits), 2**bits - 1)
    return _TEXTS


def _stated(column: Column[Any]) -> st.SearchStrategy[Any]:
    values = _values(column)
    return st.none() | values if column.nullable else values


def _rows(table: Table) -> st.SearchStrategy[list[Row]]:
    columns = [_stated(column) for column in table.columns if column.name in LLM_COLUMNS]
    columns[_MONEY : _MONEY + 2] = [st.integers(-(2**62), 2**62), st.integers(0, 999)]
    return st.lists(st.tuples(*columns), min_size=1, max_size=4, unique_by=lambda row: row[_KEPT])


@needs_clickhouse
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=_rows(LLM_CALLS))
def test_every_value_comes_back_as_it_was_written(filled: Store, rows: list[Row]) -> None:
    """Numbers, texts of any length, moments of two centuries, NULLs and money, alone and beside each other."""
    rows = [_signed(row) for row in rows]
    with filled.writing() as connection:
        connection.execute(text("TRUNCATE TABLE llm_call_telemetry"))
    Writer(filled).write(rows_of([])._replace(llm_calls=rows))
    with filled.reading() as connection:
        found = connection.execute(select(*(LLM_CALLS.c[name] for name in LLM_COLUMNS))).all()
    expected = sorted(rows, key=lambda row: str(row[_KEPT]))
    assert sorted(((to_microseconds(row[0]), *row[1:]) for row in found), key=lambda row: str(row[_KEPT])) == expected


def _signed(row: Row) -> Row:
    """The parts of a cost have one sign."""
    nano, rest = int(row[_MONEY] or 0), int(row[_MONEY + 1] or 0)
    return (*row[:_MONEY], nano, -rest if nano < 0 else rest, *row[_MONEY + 2 :])


def test_a_batch_carries_no_column_without_a_value() -> None:
    """A column of which no row has a value is left to the server, which fills it with NULLs."""
    calls = [(7, *row) for row in rows_of([llm_call(NOON), llm_call(NOON, session="s")]).llm_calls]
    named = Columns(LLM_CALLS).block(calls).columns
    assert "session_id" in named
    assert "llm_key" not in named
    assert "cost" in named
    assert not {"cost_nano", "cost_rest"} & {*named}


@pytest.mark.parametrize(
    ("column", "value"),
    [("created_at", "noon"), ("created_at", 2**70), ("model_name", 7), ("model_name", []), ("cost_nano", 0.5),
     ("cost_nano", 2**130), ("latency_ms", "long"), ("success", 300)],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_for_good(column: str, value: Any) -> None:
    """A row that no second try makes fit raises what a refusal of the server does, without quoting the value."""
    (call,) = rows_of([llm_call(NOON)]).llm_calls
    place = LLM_COLUMNS.index(column)
    wrong = (7, *call[:place], value, *call[place + 1 :])
    with pytest.raises(StoreError, match=r"^a batch cannot be written to llm_call_telemetry: \w+$") as caught:
        Columns(LLM_CALLS).block([(7, *call), wrong])
    assert not isinstance(caught.value, StoreUnavailableError)


@needs_clickhouse
def test_a_line_of_the_spool_with_a_wrong_type_keeps_no_other_waiting(filled: Store, tmp_path: Path) -> None:
    """A replay skips and reports each line that the store cannot take, and writes the others."""
    with filled.writing() as connection:
        connection.execute(text("TRUNCATE TABLE llm_call_telemetry"))
    spool, refused = Spool(tmp_path), list[StoreError]()
    empty, settled = rows_of([]), list[tuple[int, bool, bool]]()
    values: list[tuple[str, Any]] = [("agent", "planner"), ("created_at", "noon"), ("agent", 7), ("agent", [])]
    for column, value in values:
        (call,) = rows_of([llm_call(NOON)]).llm_calls
        place = LLM_COLUMNS.index(column)
        spool.append(empty._replace(llm_calls=[(*call[:place], value, *call[place + 1 :])]), 1)
    spool.append(rows_of([llm_call(NOON)]), 1)
    spool.replay(Writer(filled).write, lost=refused.append, settled=lambda *told: settled.append(told))
    spool.close()
    assert [is_written for _, is_written, _ in settled] == [True, False, False, False, True]
    assert len(refused) == 3
    with filled.reading() as connection:
        assert connection.execute(text("SELECT count() FROM llm_call_telemetry")).scalar_one() == 2


@needs_clickhouse
def test_texts_that_no_encoding_holds_are_written(filled: Store) -> None:
    """Half of a surrogate pair in a name neither ends a batch nor the rows beside it."""
    run = rows_of([task(NOON)]).runs[0]
    Writer(filled).write(
        rows_of([])._replace(runs=[tuple("a\ud800b" if value == "triage" else value for value in run)])
    )
    with filled.reading() as connection:
        assert connection.execute(text("SELECT workflow FROM agent_runs")).scalar_one() == "a?b"
