"""Commands and pages over a store in ClickHouse, on the real engine: chdb. Skipped where it is not installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from _clickhouse import needs_clickhouse, new_clickhouse
from _stored import llm_call, sqlite_url, store_at, task, url_of, verdict
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from taskpilot_obs.budgets import Budget
from taskpilot_obs.cli import (
    aggregate,
    calls,
    compare,
    costs,
    db,
    doctor,
    erase,
    export,
    optimise,
    report,
    reprice,
    runs,
    stats,
    tenants,
)
from taskpilot_obs.cli._program import Program, add_commands
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Status
from taskpilot_obs.server import create_app
from taskpilot_obs.server.web import PAGES
from taskpilot_obs.store import Store
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

pytestmark = needs_clickhouse
HOUR = timedelta(hours=1)
COMMANDS = (
    aggregate, calls, compare, costs, db, doctor, erase, export, optimise, report, reprice, runs, stats,
    tenants,
)  # fmt: skip


@contextmanager
def filled_store() -> Iterator[Store]:
    """A store with calls and runs of the last hours, of three tenants."""
    now = datetime.now(UTC)
    with store_at(new_clickhouse()) as opened:
        records = [llm_call(now - HOUR * n, cost=Decimal("0.5"), tenant=f"t{n % 3}") for n in range(6)]
        failed = llm_call(now, status=Status.ERROR, error_category="rate_limit", cost=None, tenant="t0")
        asked = task(now, tenant="t0", request_id="asked")
        Writer(opened).write(rows_of([*records, failed, asked, verdict(now, tenant="t0")]))
        yield opened


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """One for all tests that change nothing."""
    with filled_store() as opened:
        yield opened


def run(*arguments: str) -> str:
    """What a command prints, which must succeed."""
    app = typer.Typer(cls=Program)
    for module in COMMANDS:
        add_commands(app, module)
    found = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert found.exit_code == 0, (found.output, found.exception)
    return found.output


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("stats", "85.7 %"),
        ("costs", "gpt-4o"),
        ("tenants", "t2"),
        ("calls", "error"),
        ("runs asked", "triage"),
        ("optimise", "nothing found"),
        ("reprice", "$2.97"),
        ("compare --by agent", "planner"),
        ("aggregate", "\n0 hours and days summed up\n"),
        ("db current", "0005"),
        ("db check", "as expected"),
        ("doctor", "ok       store: its tables"),
    ],
)
def test_a_command_answers(store: Store, command: str, told: str) -> None:
    """Each command that asks a store takes the URL of one in ClickHouse."""
    assert told in "\n" + run(*command.split(), "--store", url_of(store))


def test_reports_and_exports_are_written(store: Store, tmp_path: Path) -> None:
    """A report and an export hold the calls."""
    run("report", str(tmp_path / "r.md"), "--store", url_of(store))
    assert "gpt-4o" in (tmp_path / "r.md").read_text()
    run("export", str(tmp_path / "calls.csv"), "--store", url_of(store))
    assert "t2" in (tmp_path / "calls.csv").read_text()


@pytest.mark.parametrize("path", [page.path for page in PAGES])
def test_a_page_is_shown(store: Store, path: str) -> None:
    """Every page of the server over it answers."""
    with TestClient(create_app(store=store), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        assert client.get(path).status_code == 200


def test_budgets_are_shown_from_the_store_that_keeps_them(store: Store, tmp_path: Path) -> None:
    """A server over ClickHouse asks `budget_store=` for budgets; without it, a server with budgets does not start."""
    daily = Budget("daily", limit_usd=5, period="day")
    with pytest.raises(ConfigurationError, match=r"budget_store: .* has no transactions"):
        create_app(store=store, budgets=[daily])
    with store_at(sqlite_url(tmp_path)):
        pass
    app = create_app(store=store, budgets=[daily], budget_store=sqlite_url(tmp_path))
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        assert [line["budget"] for line in client.get("/v1/budgets").json()] == ["daily"]
        assert client.get("/budgets").status_code == client.get("/").status_code == 200


def test_a_tenant_is_erased_by_the_command() -> None:
    """`erase` tells how many rows it took, and no answer names the tenant afterwards."""
    with filled_store() as store:
        told = run("erase", "--tenant", "t1", "--store", url_of(store))
        assert "llm_call_telemetry" in told
        left = json.loads(run("stats", "--json", "--store", url_of(store)))
        assert left["requests"] == 5
        assert "t1" not in run("tenants", "--store", url_of(store))
