"""The commands on a telemetry store: what they print, and how they exit."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from _postgres import Server, postgres_server
from _stored import llm_call, new_database, sqlite_url, store_at
from sqlalchemy import text
from typer.testing import CliRunner, Result

from taskpilot_obs.cli import aggregate, costs, db, doctor, erase, report, stats, tenants
from taskpilot_obs.cli._program import Program, add_commands
from taskpilot_obs.records import Status
from taskpilot_obs.stats import write_report
from taskpilot_obs.store import StoreExporter
from taskpilot_obs.store.versions import REVISIONS

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _no_store_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKPILOT_OBS_STORE", raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with some calls of the last hours."""
    now = datetime.now(UTC)
    where = sqlite_url(tmp_path)
    exporter = StoreExporter(where)
    exporter.export([llm_call(now - HOUR * n, cost=Decimal("0.5"), tenant=f"t{n % 2}") for n in range(4)])
    exporter.export([llm_call(now, status=Status.ERROR, error_category="rate_limit", agent="[red]|<b>", tenant=None)])
    exporter.export([llm_call(now - 40 * 24 * HOUR, cost=None, tenant="old")])
    exporter.shutdown(1.0)
    return where


def run(*arguments: str) -> Result:
    """Run a command as the terminal would, in a wide one."""
    app = typer.Typer(cls=Program)
    for module in (aggregate, costs, db, doctor, erase, report, stats, tenants):
        add_commands(app, module)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})


def rows(output: str) -> list[dict[str, str]]:
    """Comma-separated values as dictionaries."""
    return list(csv.DictReader(io.StringIO(output)))


def test_stats_are_a_table(url: str) -> None:
    """Overall figures, groups and errors, with names shown as they are."""
    result = run("stats", "--store", url)
    assert result.exit_code == 0
    for expected in ("80.0 %", "gpt-4o", "[red]|<b>", "rate_limit", "$2.01"):
        assert expected in result.output


def test_stats_are_json(url: str) -> None:
    """The model as JSON, money as text."""
    found = json.loads(run("stats", "--store", url, "--json", "--tenant", "t0").output)
    assert (found["requests"], found["cost_usd"]) == (2, "1.000000000000")


def test_stats_are_csv(url: str) -> None:
    """One line for all and one for each group."""
    found = rows(run("stats", "--store", url, "--csv").output)
    assert (found[0]["group"], found[0]["requests"], found[0]["failures"]) == ("all", "5", "1")
    assert {line["group"] for line in found} == {"all", "provider", "model", "agent"}


def test_what_was_pruned_is_said(url: str) -> None:
    """A question about a user beyond the kept rows reports what it lacks."""
    assert run("aggregate", "--store", url, "--retention-days", "0.08").exit_code == 0
    assert "were deleted and are not counted" in run("stats", "--store", url, "--user", "ann").output


def test_costs_are_broken_down(url: str) -> None:
    """By provider, model, agent and tenant, as a table, JSON and CSV."""
    table = run("costs", "--store", url).output
    assert "$2.01 in 5 requests, 100.0 % of them with a known price" in table
    assert json.loads(run("costs", "--store", url, "--json").output)["by_tenant"]["t0"]["requests"] == 2
    assert rows(run("costs", "--store", url, "--csv").output)[0]["cost_usd"] == "2.010500000000"
    assert (
        "0.0 % of them with a known price" in run("costs", "--store", url, "--period", "60d", "--tenant", "old").output
    )


def test_money_has_no_exponent(tmp_path: Path) -> None:
    """Nothing is `0` and a small amount has all its places, in JSON as in comma-separated values."""
    where = sqlite_url(tmp_path)
    exporter = StoreExporter(where)
    exporter.export([llm_call(datetime.now(UTC), cost=cost) for cost in (Decimal("7.5E-7"), None)])
    exporter.export([llm_call(datetime.now(UTC), cost=Decimal("0E-8"), tenant="free")])
    exporter.shutdown(1.0)
    costs = run("costs", "--store", where, "--csv").output + run("costs", "--store", where, "--json").output
    others = [run(command, "--store", where, "--csv").output for command in ("stats", "tenants")]
    assert not re.search(r"\dE[-+]\d", "".join([costs, *others]))
    assert "all,,3,0.000000750000," in costs
    assert "tenant,free,1,0,0.0,0\n" in costs


def test_costs_can_be_watched(url: str) -> None:
    """A live monitor shows rate, pace and projection, and stops at its time limit."""
    result = run("costs", "--store", url, "--watch", "0.1", "--times", "2", "--window", "24h")
    assert result.exit_code == 0
    assert "this month" in result.output
    assert "at the present rate" in result.output


def test_tenants_are_listed(url: str) -> None:
    """Every tenant, in falling order of cost."""
    assert "__none__" in run("tenants", "--store", url).output
    assert [line["tenant"] for line in rows(run("tenants", "--store", url, "--csv").output)] == ["t0", "t1", "__none__"]
    assert len(json.loads(run("tenants", "--store", url, "--json").output)["tenants"]) == 3


@pytest.mark.parametrize("kind", ["html", "md"])
def test_a_report_is_one_private_file(url: str, tmp_path: Path, kind: str) -> None:
    """Plots and tables in one file for its owner, in which names are escaped."""
    target = tmp_path / f"report.{kind}"
    target.write_text("old")
    assert run("report", str(target), "--store", url, "--period", "24h").exit_code == 0
    content = target.read_text()
    assert target.stat().st_mode & 0o777 == 0o600
    for expected in ("Spend", "Latency", "Failures", "Models", "Tenants", "t1", "rate_limit", "&lt;b&gt;"):
        assert expected in content
    assert "<b>" not in content
    assert ("<svg" in content) == (kind == "html")


def test_a_report_on_nothing_is_a_report(tmp_path: Path) -> None:
    """An empty store has a report without figures."""
    url = sqlite_url(tmp_path)
    with store_at(url) as store:
        for kind in ("html", "md"):
            assert "success rate" in write_report(tmp_path / f"r.{kind}", "30d", store=store).read_text()


def test_a_report_that_cannot_be_written_is_bad_usage(url: str, tmp_path: Path) -> None:
    """Another kind of file, or a folder that is not there, exits with 2 and says what was wrong."""
    assert "must end in .html or .md" in _bad("report", str(tmp_path / "r.pdf"), "--store", url)
    assert "cannot be written" in _bad("report", str(tmp_path / "missing" / "r.md"), "--store", url)


def _bad(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 2
    return result.output


def test_bad_usage_exits_with_two(url: str) -> None:
    """What was wrong, and what is allowed."""
    assert "TASKPILOT_OBS_STORE" in _bad("stats")
    assert "allowed are" in _bad("stats", "--store", "mysql://x")
    assert "exclude each other" in _bad("stats", "--store", url, "--json", "--csv")
    assert "'hourly' and 'daily'" in _bad("aggregate", "--store", url, "--period", "yearly")
    assert "leave out --json" in _bad("costs", "--store", url, "--watch", "1", "--json")
    assert "timezone" in _bad("costs", "--store", url, "--watch", "1", "--times", "1", "--timezone", "Mars")


def test_a_store_that_cannot_be_read_exits_with_four(tmp_path: Path) -> None:
    """A missing file is named on standard error."""
    result = run("stats", "--store", sqlite_url(tmp_path))
    assert result.exit_code == 4
    assert "there is no telemetry store" in result.output


def test_the_environment_names_the_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --store the commands read TASKPILOT_OBS_STORE."""
    monkeypatch.setenv("TASKPILOT_OBS_STORE", url)
    assert json.loads(run("stats", "--json").output)["requests"] == 5


def test_aggregating_says_what_it_did(url: str) -> None:
    """Hours and days that were summed up, rows that were deleted; a second time there is nothing to do."""
    first = json.loads(run("aggregate", "--store", url, "--json").output)
    assert first["summed_up"] >= 4
    assert first["deleted"] == {}
    assert "0 hours and days" in run("aggregate", "--store", url).output
    assert "0 rows of agent_runs deleted" in run("aggregate", "--store", url, "--retention-days", "30").output


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


def test_the_tables_of_a_server_are_made_once(server: Server) -> None:
    """`db check` fails before `db upgrade` and passes after it; `db current` tells the version."""
    url = new_database(server)
    assert run("db", "current", "--store", url).output.strip() == "no tables"
    before = run("db", "check", "--store", url)
    assert (before.exit_code, "db upgrade" in before.output) == (1, True)
    assert f"version {REVISIONS[-1]}" in run("db", "upgrade", "--store", url).output
    assert run("db", "upgrade", "--store", url).exit_code == 0
    assert run("db", "current", "--store", url).output.strip() == REVISIONS[-1]
    assert run("db", "check", "--store", url).output.strip() == f"version {REVISIONS[-1]}, as expected"


def test_a_table_that_was_changed_is_told(url: str) -> None:
    """`db check` names what differs and exits with 1."""
    with store_at(url) as store, store.writing() as connection:
        connection.execute(text("DROP INDEX ix_agent_runs_time"))
    result = run("db", "check", "--store", url)
    assert (result.exit_code, "ix_agent_runs_time" in result.output) == (1, True)


def test_a_file_is_made_by_db_upgrade_too(tmp_path: Path) -> None:
    """For SQLite the command is allowed, and makes the file."""
    assert run("db", "upgrade", "--store", sqlite_url(tmp_path)).exit_code == 0
    assert (tmp_path / "telemetry.db").exists()


def test_without_the_extra_the_commands_name_it() -> None:
    """Where SQLAlchemy is missing, the command exits with 2 and says what to install."""
    code = (
        "import sys; sys.modules['sqlalchemy'] = None; sys.argv = ['taskpilot-obs', 'stats', '--store', 'sqlite:///x'];"
        "from taskpilot_obs.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, "taskpilot-obs[store]" in result.stderr) == (2, True)


def test_importing_the_library_does_not_import_sqlalchemy() -> None:
    """Only what uses the store pays for it."""
    code = "import sys, taskpilot_obs; assert not {'sqlalchemy', 'alembic', 'psycopg'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tenant_is_erased_from_the_terminal(url: str) -> None:
    """A dry run counts, the real one erases; what is left is an exit code of its own."""
    counted = run("erase", "--store", url, "--tenant", "t1", "--dry-run")
    assert (counted.exit_code, "2 rows of llm_call_telemetry would be erased" in counted.output) == (0, True)
    done = run("erase", "--store", url, "--tenant", "t1", "--json")
    assert json.loads(done.output)["erased"]["llm_call_telemetry"] == 2
    assert "t1" not in run("tenants", "--store", url, "--csv").output
    run("aggregate", "--store", url, "--retention-days", "30")
    left = run("erase", "--store", url, "--user", "ann")
    assert (left.exit_code, "out of reach: records in llm_usage_summaries" in left.output) == (1, True)
    for wrong in ([], ["--user", "a", "--tenant", "b"], ["--user", ""]):
        assert run("erase", "--store", url, *wrong).exit_code == 2


def test_retention_is_given_by_table(url: str) -> None:
    """`--retention TABLE=DAYS` counts first with --dry-run; another text is wrong usage, in a sentence."""
    counted = run("aggregate", "--store", url, "--retention", "llm_call_telemetry=30", "--dry-run")
    assert "1 rows of llm_call_telemetry would be deleted" in counted.output
    done = run("aggregate", "--store", url, "--retention", "llm_call_telemetry=30", "--json")
    assert json.loads(done.output)["deleted"] == {"llm_call_telemetry": 1}
    for wrong in ("llm_call_telemetry=inf", "llm_call_telemetry=1e12", "llm_call_telemetry", "no_table=3"):
        refused = run("aggregate", "--store", url, "--retention", wrong)
        assert (refused.exit_code, "Traceback" in refused.output) == (2, False)
    for arguments in (["stats", "--period", "999999999d"], ["aggregate", "--lookback-hours", "inf"]):
        refused = run(*arguments, "--store", url)
        assert (refused.exit_code, refused.exception.__class__) == (2, SystemExit)


def test_the_tables_are_repaired_rebuilt_and_taken_back(url: str) -> None:
    """Each says what it did; going back and forth keeps every figure."""
    before = run("stats", "--store", url, "--json").output
    assert "no mark is beyond" in run("db", "repair", "--store", url).output
    assert "hours and days summed up" in run("db", "rebuild-summaries", "--store", url).output
    assert "version 0003" in run("db", "downgrade", "0003", "--store", url).output
    assert run("db", "check", "--store", url).exit_code == 1
    assert json.loads(run("stats", "--store", url, "--json").output)["cost_usd"] == json.loads(before)["cost_usd"]
    assert run("db", "upgrade", "--store", url).exit_code == 0


def test_the_largest_tenants_are_said_to_be_some(url: str) -> None:
    """`--limit` lists the largest, and the title says of how many."""
    assert "the 2 largest of 4" in run("tenants", "--store", url, "--period", "60d", "--limit", "2").output
    assert len(rows(run("tenants", "--store", url, "--period", "60d", "--limit", "3", "--csv").output)) == 3


def test_the_doctor_looks_at_a_store(url: str, tmp_path: Path) -> None:
    """Version, tables, encoding, rights, summaries, size, budgets and clock; a store that is missing is a problem."""
    result = run("doctor", "--store", url, "--json")
    found = {finding["text"]: finding["level"] for finding in json.loads(result.output)}
    assert result.exit_code == 0
    assert [level for text, level in found.items() if "not summed up" in text] == ["warning"]
    assert sorted(found.values()) == ["ok"] * 8 + ["warning"]
    missing = run("doctor", "--store", sqlite_url(tmp_path / "none"))
    assert (missing.exit_code, "there is no telemetry store" in missing.output) == (1, True)
