"""`taskpilot-obs export`: calls as files that other programs read."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from _stored import NOON, llm_call, sqlite_url, store_at
from typer.testing import CliRunner, Result

from taskpilot_obs.cli import export
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.records import Status
from taskpilot_obs.stats import export_calls, get_cost_breakdown
from taskpilot_obs.stats.export import FOCUS_COLUMNS
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

SPAN = (NOON - timedelta(days=2), NOON + timedelta(days=2))


def test_no_name_is_a_formula_in_a_file(tmp_path: Path) -> None:
    """A spreadsheet shows what calls were named after and computes none of it, in lines of calls and of charges."""
    url = sqlite_url(tmp_path)
    with store_at(url) as store:
        call = llm_call(NOON, user="=1+1", tenant="@SUM(1)", agent="\uff1d1", attributes={"prompt_name": "-2+3"})
        Writer(store).write(rows_of([call]))
    for form in ("csv", "focus"):
        file = tmp_path / f"{form}.csv"
        export_calls(file, SPAN, store=url, format=form)
        with file.open(newline="") as lines:
            cells = [cell for line in csv.reader(lines) for cell in line]
        assert "'@SUM(1)" in cells
        assert not [cell for cell in cells if cell.startswith(("=", "@", "\uff1d", "-"))]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with 1,203 calls of two days, one of them with a comma and a quotation mark in a name."""
    calls = [llm_call(NOON + timedelta(seconds=number)) for number in range(1_200)]
    odd = llm_call(NOON + timedelta(days=1), user='O"Neil, J.', status=Status.ERROR, cost=None, usage=None)
    tiny = llm_call(NOON + timedelta(days=1), cost=Decimal("0.000000000001"), tenant=None, agent="writer")
    with store_at(sqlite_url(tmp_path)) as store:
        Writer(store).write(rows_of([*calls, odd, tiny, llm_call(NOON - timedelta(days=90))]))
    return sqlite_url(tmp_path)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*arguments: str) -> Result:
    app = typer.Typer()
    add_commands(app, export)
    return CliRunner().invoke(app, arguments)


def test_every_call_is_a_line(url: str, tmp_path: Path) -> None:
    """All calls of the period, beyond one page, with exact money, ISO times and empty cells for unknown values."""
    path = tmp_path / "calls.csv"
    assert export_calls(path, SPAN, store=url) == 1_202
    lines = read(path)
    assert len({line["telemetry_id"] for line in lines}) == 1_202
    odd = next(line for line in lines if line["status"] == "error")
    assert (odd["user_id"], odd["cost"], odd["input_tokens"]) == ('O"Neil, J.', "", "")
    assert datetime.fromisoformat(odd["created_at"]) == NOON + timedelta(days=1)
    assert "0.000000000001" in {line["cost"] for line in lines}
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "calls.csv.part").exists()


def test_focus_has_a_line_a_charge(url: str, tmp_path: Path) -> None:
    """Days, providers, models, tenants and agents add up to what the cost breakdown states."""
    path = tmp_path / "focus.csv"
    assert export_calls(path, SPAN, format="focus", store=url) == 3
    lines = read(path)
    assert tuple(lines[0]) == FOCUS_COLUMNS
    assert sum(Decimal(line["BilledCost"]) for line in lines) == get_cost_breakdown(SPAN, store=url).cost_usd
    first = lines[0]
    assert (first["ServiceCategory"], first["BillingCurrency"]) == ("AI and Machine Learning", "USD")
    assert (first["ChargePeriodStart"], first["BillingPeriodStart"]) == (
        "2026-03-10T00:00:00Z",
        "2026-03-01T00:00:00Z",
    )
    assert (first["SubAccountId"], first["x_Requests"], first["ConsumedQuantity"]) == ("acme", "1200", "1440000")
    assert sum(int(line["x_UnpricedRequests"]) for line in lines) == 1


def test_parquet_keeps_the_types(url: str, tmp_path: Path) -> None:
    """Times, decimals, integers and unknown values come back as such."""
    if find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed (extra parquet)")
    from pyarrow import parquet

    path = tmp_path / "calls.parquet"
    assert export_calls(path, SPAN, store=url, agent="writer") == 1
    (line,) = parquet.read_table(path).to_pylist()
    assert (line["created_at"], line["cost"]) == (NOON + timedelta(days=1), Decimal("0.000000000001"))
    assert line["created_at"].tzinfo is not None
    assert (line["input_tokens"], line["success"], line["organization_id"]) == (1_000, True, None)
    assert export_calls(path, SPAN, store=url, agent="nobody") == 0
    assert parquet.read_table(path).num_rows == 0


def test_the_command_writes_what_was_asked_for(url: str, tmp_path: Path) -> None:
    """The period, the filters and the format; a wrong format, store or folder ends with 2 or 4."""
    path = tmp_path / "out.csv"
    done = run(str(path), "--store", url, "--from", "2026-03-10", "--to", "2026-03-13", "--where", "agent=writer")
    assert (done.exit_code, len(read(path))) == (0, 1)
    assert run(str(tmp_path / "out.xlsx"), "--store", url).exit_code == 2
    assert run(str(path)).exit_code == 2
    assert run(str(tmp_path / "none" / "out.csv"), "--store", url).exit_code == 2
    assert run(str(path), "--store", sqlite_url(tmp_path / "none")).exit_code == 4
    assert len(read(path)) == 1  # what was there stays whole


def test_parquet_names_its_extra(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow the command ends with 2, says what to install and writes nothing."""
    monkeypatch.setattr("taskpilot_obs.stats.export.is_installed", lambda _name: False)
    done = run(str(tmp_path / "calls.parquet"), "--store", url)
    assert done.exit_code == 2
    assert "taskpilot-obs[parquet]" in done.output
    assert not (tmp_path / "calls.parquet").exists()
