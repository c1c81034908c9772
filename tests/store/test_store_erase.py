"""Erasing one user or tenant: gone from every table, every statistic, the spool and the disk."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import threading
import time
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from _postgres import Server
from _stored import NOON, denial, llm_call, new_database, sqlite_url, store_at, task, verdict
from sqlalchemy import func, inspect, select, text
from typer.testing import CliRunner

from taskpilot_obs import record_llm_call, request_context, track_workflow
from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, ReservationLine
from taskpilot_obs.cli import erase as erase_command
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Origin
from taskpilot_obs.stats import get_stats, get_tenant_stats, get_tenants_report
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, erase, prune
from taskpilot_obs.store.budget_ledger import StoreLedger
from taskpilot_obs.store.ledger_tables import ALL_TABLES
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.spool import Spool
from taskpilot_obs.store.tables import LLM_CALLS
from taskpilot_obs.store.writer import Writer
from taskpilot_obs.testing import fresh_recorder

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ALL = (NOON - 90 * DAY, NOON + DAY)


def fill(store: Store) -> None:
    """Calls, runs, verdicts, denials and budgets of three tenants and four users, some of them old."""
    calls = [
        llm_call(
            NOON - n * 7 * HOUR, tenant=("acme", "umbrella", "globex")[n % 3], user=f"user-{n % 4}", cost=Decimal(1)
        )
        for n in range(120)
    ]
    runs = [task(NOON - n * HOUR, user=f"user-{n % 4}", tenant="acme") for n in range(8)]
    said = [verdict(NOON)._replace(origin=Origin(tenant="acme", user="user-1"))]
    denied = [denial(NOON)._replace(origin=Origin(tenant="acme", user="user-1"))]
    Writer(store).write(rows_of([*calls, *runs, *said, *denied]))
    for scope, name in (("user", "user-1"), ("user", "USER-1"), ("tenant", "acme")):
        budget = Budget(f"per-{scope}", limit_usd=100, scope={scope: "*"})
        window = budget.window(NOON)
        key = json.dumps({scope: name})
        line = ReservationLine(budget, BudgetAccount(budget.name, key, window.start), window, 10**12)
        StoreLedger(store).settle([Charge(line)], NOON)


def left_of(store: Store, name: str) -> list[str]:
    """The tables and columns that still hold the name."""
    with store.reading() as connection:
        return [
            f"{table.name}.{column.name}"
            for table in ALL_TABLES
            for column in table.columns
            if str(column.type) == "TEXT"
            and connection.execute(
                select(func.count()).select_from(table).where(func.replace(column, name, "") != column)
            ).scalar_one()
        ]


@pytest.mark.promise("erased")
@pytest.mark.parametrize("summed_up", [False, True])
def test_a_tenant_is_gone_everywhere(store: Store, summed_up: bool) -> None:
    """No table holds its name, and every statistic is that of the others, also of hours whose rows are deleted."""
    fill(store)
    if summed_up:
        aggregate_summaries("daily", None, store=store)
        prune({"llm_call_telemetry": 10}, store=store, now=NOON)
    before = get_stats(ALL, store=store)
    others = get_stats(ALL, store=store, tenant="umbrella")
    counted = erase(tenant="acme", store=store, dry_run=True)
    assert get_stats(ALL, store=store).requests == before.requests
    done = erase(tenant="acme", store=store)
    assert done == counted
    assert done.out_of_reach == ()
    assert left_of(store, "acme") == []
    for _ in range(2):
        assert get_stats(ALL, store=store).requests == before.requests - 40
        assert get_stats(ALL, store=store).cost_usd == before.cost_usd - 40
        assert get_tenant_stats("acme", ALL, store=store).requests == 0
        assert get_stats(ALL, store=store, tenant="umbrella").requests == others.requests
        assert {line.tenant for line in get_tenants_report(ALL, store=store).tenants} == {"umbrella", "globex"}
        aggregate_summaries("daily", None, store=store)
    assert sum(erase(tenant="acme", store=store).erased.values()) == 0


@pytest.mark.promise("erased")
def test_a_user_is_gone_and_what_cannot_be_told_apart_is_listed(store: Store) -> None:
    """Rows, ratings and lines of budgets go, and no other user's; old sums without names are listed."""
    fill(store)
    prune({"llm_call_telemetry": 10}, store=store, now=NOON)
    rows = get_stats(ALL, store=store, user="user-1").requests
    others = get_stats(ALL, store=store, user="user-2").requests
    done = erase(user="user-1", store=store)
    assert done.erased["llm_call_telemetry"] == rows
    assert {name: done.erased[name] for name in ("agent_runs", "user_feedback", "policy_violations")} == {
        "agent_runs": 2,
        "user_feedback": 1,
        "policy_violations": 1,
    }
    assert done.erased["budget_ledger"] == 1
    assert left_of(store, "user-1") == []
    assert left_of(store, "USER-1") == ["budget_ledger.scope_key"]
    assert [each.where for each in done.out_of_reach] == ["llm_usage_summaries"]
    assert get_stats(ALL, store=store, user="user-2").requests == others


@pytest.mark.promise("erased")
def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    """SQLite overwrites what is erased, in the file and in its journal."""
    with store_at(sqlite_url(tmp_path)) as store:
        Writer(store).write(rows_of([llm_call(user="SECRET-USER"), *(llm_call() for _ in range(50))]))
        assert b"SECRET-USER" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        erase(user="SECRET-USER", store=store)
        assert b"SECRET-USER" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert get_stats(ALL, store=store).requests == 50


def test_what_waits_in_the_spool_is_erased(server: Server, tmp_path: Path) -> None:
    """Rows that a dead process left are taken out; those of a living one are listed with their number."""
    url = new_database(server)
    some, others = (rows_of([llm_call(user="ann"), llm_call(user="bob"), task(user="ann")]) for _ in range(2))
    with store_at(url) as store:
        with closing(Spool(tmp_path)) as dead:
            dead.append(some, 3)
        with closing(Spool(tmp_path)) as living:
            living.append(others, 3)
            done = erase(user="ann", store=store, spool_dir=tmp_path)
            assert done.erased["spool"] == 2
            assert [each.records for each in done.out_of_reach] == [2]
        exporter = StoreExporter(url, spool_dir=tmp_path)
        assert erase(user="ann", store=store, spool_dir=tmp_path).erased["spool"] == 2
        exporter.export([llm_call(user="carl")])
        deadline = time.monotonic() + 30.0
        while get_stats(ALL, store=store).requests < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        exporter.shutdown(5.0)
        assert get_stats(ALL, store=store, user="ann").requests == 0
        assert get_stats(ALL, store=store, user="bob").requests == 2


def test_a_damaged_line_of_the_spool_is_erased_with_the_name_in_it(server: Server, tmp_path: Path) -> None:
    """A line that a crash left unfinished is taken out where it names the user; any other stays for the accounts."""
    with closing(Spool(tmp_path)) as dead:
        dead.append(rows_of([llm_call(user="ann"), llm_call(user="bob")]), 2)
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole.replace(b'"bob"', b'"joe"')[:-20] + b"\n" + b'{"records":1}\n')
    with store_at(new_database(server)) as store:
        assert erase(user="joe", store=store, spool_dir=tmp_path).erased["spool"] == 1
        assert path.read_bytes() == whole + b'{"records":1}\n'
        assert erase(user="ann", store=store, spool_dir=tmp_path).erased["spool"] == 1
        assert b'"ann"' not in path.read_bytes()
        assert b'"bob"' in path.read_bytes()


@pytest.mark.promise("erased")
def test_a_writer_does_not_wait_for_an_erasure(store: Store, url: str) -> None:
    """Ten thousand calls are erased in many small transactions, between which others write."""
    Writer(store).write(rows_of([llm_call(NOON - n % 240 * HOUR, user="ann") for n in range(10_000)]))
    waits: list[float] = []
    done = threading.Event()

    def keep_writing() -> None:
        exporter = StoreExporter(url)
        while not done.is_set():
            began = time.perf_counter()
            exporter.export([llm_call(user="bob")])
            waits.append(time.perf_counter() - began)
            time.sleep(0.002)
        exporter.shutdown(5.0)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        assert erase(user="ann", store=store).erased["llm_call_telemetry"] == 10_000
    finally:
        done.set()
        thread.join()
    assert len(waits) > 20
    assert sorted(waits)[len(waits) // 2] < 0.5
    assert get_stats(ALL, store=store, user="bob").requests == len(waits)


@pytest.mark.parametrize("given", [{}, {"user": "a", "tenant": "b"}, {"user": ""}, {"tenant": ""}])
def test_an_erasure_of_no_one_is_refused(store: Store, given: dict[str, str]) -> None:
    """Neither, both or an empty name: an error, and nothing is erased."""
    with pytest.raises(ConfigurationError, match="erase"):
        erase(store=store, **given)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("who", ["user", "session"])
def test_who_called_is_found_by_an_index(store: Store, who: str) -> None:
    """Questions of a user or a session, and erasures of a user, read those rows and no others."""
    Writer(store).write(rows_of([llm_call(NOON, **{who: f"u{n}"}) for n in range(3)]))
    index = f"ix_llm_call_telemetry_{who}_time"
    assert index in {str(each["name"]) for each in _indexes(store)}
    if store.is_sqlite:
        times = "created_at >= 0 AND created_at < 9e15"
        query = f"SELECT count(*) FROM llm_call_telemetry WHERE {times} AND {who}_id = 'u1'"  # noqa: S608  our names
        with closing(sqlite3.connect(str(store.url.database))) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
        assert index in str(plan)


def _indexes(store: Store) -> list[dict[str, object]]:
    with store.reading() as connection:
        connection.execute(text("SELECT 1"))
        return [dict(index) for index in inspect(connection).get_indexes(LLM_CALLS.name)]


def test_the_page_on_privacy_is_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/privacy.md erase a user and a tenant, and list the records of the audit log."""
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
    section = page[page.index("## Erasing a subject") :]
    block = section[section.index("```sh\n") + 6 :]
    commands = [shlex.split(line, comments=True)[1:] for line in block[: block.index("```")].splitlines()]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKPILOT_OBS_STORE", sqlite_url(tmp_path))
    with fresh_recorder(store=sqlite_url(tmp_path), audit_log="audit.jsonl") as recorder:
        for user, tenant in (("u-17", "acme"), ("u-18", "acme"), ("u-17", "umbrella"), ("u-19", "umbrella")):
            with request_context(user_id=user, tenant_id=tenant), track_workflow("answer"):
                record_llm_call(provider="openai", model="gpt-4o", usage={"input_tokens": 10, "output_tokens": 5})
        assert recorder.flush()
    app = typer.Typer()
    app.callback()(lambda: None)
    add_commands(app, erase_command)
    results = [CliRunner().invoke(app, command) for command in commands]
    assert [result.exit_code for result in results] == [0, 1, 0]
    assert "2 rows of llm_call_telemetry would be erased" in results[0].output
    assert all(re.search(r"\d+ records in \S*audit\.jsonl", result.output.replace("\n", "")) for result in results[:2])
    assert [line.tenant for line in get_tenants_report("1h", store=sqlite_url(tmp_path)).tenants] == ["umbrella"]
    assert get_stats("1h", store=sqlite_url(tmp_path), user="u-17").requests == 0
