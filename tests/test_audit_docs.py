from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from taskpilot_obs.cli.audit import register
from taskpilot_obs.semconv import Event, Field, LogType

PAGE = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")


def values(names: type) -> set[str]:
    return {value for name, value in vars(names).items() if name.isupper()}


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_field_is_described_once() -> None:
    """The table of fields names each field of the contract, once and no other."""
    described = re.findall(r"^\| `([a-z_]+)` \|", section("Fields"), flags=re.MULTILINE)
    assert sorted(described) == sorted(values(Field))


def test_every_event_and_type_is_described() -> None:
    """The table of records names each event and each type that the library writes."""
    told = set(re.findall(r"`([a-z.]+)`", section("Records")))
    assert values(Event) | values(LogType) <= told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each Python snippet of the page ran as it stands."""
    folder = tmp_path_factory.mktemp("page")
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        subprocess.run([sys.executable, "-W", "error", "-c", snippet], cwd=folder, check=True)
    return folder


def test_the_python_of_the_page_runs(folder: Path) -> None:
    """The snippets run, and leave a log that holds what they did."""
    assert (folder / "audit.jsonl").read_text().count("PlannerAgent Output") == 1


@pytest.mark.parametrize("command", re.findall(r"^taskpilot-obs audit (.+)$", PAGE, flags=re.MULTILINE))
def test_the_commands_of_the_page_run(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Each command is good usage, and ends well on a good log."""
    monkeypatch.chdir(folder)
    (folder / "anchors-elsewhere.jsonl").write_bytes((folder / "audit.anchors").read_bytes())
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["audit", *command.split()], env={"TASKPILOT_OBS_AUDIT_KEY": ""})
    assert result.exit_code == 0, result.output
