"""`taskpilot-obs bench`, as it is typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from taskpilot_obs.cli import bench as command
from taskpilot_obs.testing import fresh_recorder


@pytest.fixture(autouse=True)
def _recorder() -> Iterator[None]:
    """The command configures the default recorder, which is another test's before and after."""
    with fresh_recorder():
        yield


def ran(*arguments: str, columns: int = 80) -> Result:
    app = typer.Typer()
    command.register(app)
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": str(columns)}, terminal_width=columns)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(
        "from taskpilot_obs import record_llm_call\n"
        "def good(prompt):\n"
        "    record_llm_call(model='gpt-4o-mini', cost='0.01', usage={'input_tokens': 3, 'output_tokens': 5})\n"
        "    return '16'\n"
        "def broken(prompt):\n"
        "    raise ValueError('broken')\n"
    )
    (tmp_path / "task.jsonl").write_text(
        '{"prompt": "4 * 4?", "expected": "16", "checker": "number"}\n{"prompt": "2 * 8?", "expected": "16"}\n'
    )
    return tmp_path


def test_functions_and_tasks_of_ones_own(folder: Path) -> None:
    """Several providers and tasks follow one option; table, files and exit code report what came of each."""
    done = ran(
        "--providers", "mine:good", "b=mine:broken", "gone=openai/gpt-4o", "--tasks", "task.jsonl", "simple",
        "--items", "2", "--iterations", "2", "--out", "out", "--retries", "0", "--warm-up", "0", "--strict",
    )  # fmt: skip
    assert done.exit_code == 1, done.stderr
    assert "gone is not asked: set OPENAI_API_KEY to ask gpt-4o" in done.stderr
    assert "b: 8 calls failed (8 other)" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:14])) <= 80
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["arms"]["mine:good"]["correct"]["value"] == 0.5
    assert report["arms"]["mine:good"]["cost_per_correct_usd"] == "0.02"
    assert report["failed_arms"] == {"gone": "set OPENAI_API_KEY to ask gpt-4o"}
    assert (folder / "out" / "report.md").read_text().startswith("# Benchmark bench-")
    assert "<svg" in (folder / "out" / "report.html").read_text()


def test_a_dry_run_needs_no_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of providers whose keys are missing has its price, and each missing key is named."""
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    models = ("openai/gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash")
    done = ran("--providers", *models, "--iterations", "1", "--dry-run", columns=200)
    assert done.exit_code == 0, done.output
    for model in models:
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(model)]
        assert "$" in row
    assert "set ANTHROPIC_API_KEY" in done.output


def test_a_dry_run_prices_the_plan_and_asks_nothing(folder: Path) -> None:
    """A dry run prints calls, tokens and cost by arm, and calls no arm."""
    done = ran("--providers", "x=openai/gpt-4o-mini@http://127.0.0.1:9/v1", "mine:broken", "--dry-run", columns=200)
    assert done.exit_code == 0, done.stderr
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert lines["x"][0] == "101"
    assert lines["x"][3].startswith("$0.0")
    assert lines["mine:broken"][3] == "-"
    assert not (folder / "taskpilot-bench").exists() or not [*(folder / "taskpilot-bench").glob("*/calls.jsonl")]


def test_a_plan_above_its_cap_needs_an_answer(folder: Path) -> None:
    """Where a plan may cost more than --max-cost, the command asks; in a pipe it refuses, unless --yes is given."""
    asked = ("--providers", "x=openai/gpt-4o@http://127.0.0.1:9/v1", "--max-cost", "0.001", "--retries", "0")
    done = ran(*asked)
    assert done.exit_code == 2
    assert "more than --max-cost $0.001" in done.stdout
    done = ran(*asked, "--yes", "--items", "1", "--iterations", "1", "--out", "out")
    assert done.exit_code == 0
    assert json.loads((folder / "out" / "report.json").read_text())["plan"]["max_cost_usd"] == "0.001"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --providers"),
        (("--providers", "gpt-4o"), "write PROVIDER/MODEL"),
        (("--providers", "mine:nosuch"), "nosuch"),
        (("--providers", "mine:good", "mine:good"), "given twice"),
        (("--providers", "mine:good", "--tasks", "nosuch"), "allowed are simple"),
        (("--providers", "mine:good", "--rate", "fast"), "write 2/s"),
        (("--providers", "mine:good", "--goodput", "speed:1"), "allowed are"),
        (("--providers", "mine:good", "--max-cost", "-1"), "max_cost_usd"),
        (("--resume", "nosuch"), "holds no benchmark run"),
    ],
)
def test_wrong_usage_is_explained(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """What cannot be understood ends with 2, the reason, and no traceback."""
    done = ran(*arguments, columns=300)
    assert done.exit_code == 2
    assert message in done.stderr


def test_the_demo_finds_the_truth(folder: Path) -> None:
    """Three pretend providers are told apart as they were built: the quick and cheap one is most often wrong."""
    done = ran("--demo", "--items", "12", "--iterations", "2", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failed_arms"] == {}
    findings = {found["measure"]: found for found in report["findings"]}
    assert "pretend-swift" in findings["correct answers"]["worse"]
    assert findings["cost of an answer"]["best"] == ["pretend-swift"]
    assert report["arms"]["pretend-grand"]["request_latency"]["min"] > 100
