"""Every command on narrow terminals, without colours, in ASCII and in pipes; help that can be read there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from _stored import llm_call, sqlite_url
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner

from taskpilot_obs import cli
from taskpilot_obs.cli._program import built
from taskpilot_obs.store import StoreExporter

PROGRAM = built(cli.__path__, cli.__name__)
LONG_MODEL = "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0-and-an-alias"
NAMES = ("\x1b[31mévil\u202e[/x]", "日本語の顧客", "acme")
REQUEST = "0b8b40fa-0a3f-4d38-92f5-3a3f6f5b3c11"
COMMANDS = (
    *(["stats"], ["costs"], ["tenants"], ["users"], ["agents"], ["tools"], ["calls"], ["runs", REQUEST]),
    *(["compare"], ["compare", "--by", "agent"], ["compare", "--experiment", "none"], ["optimise"]),
    *(["reprice", "--as-model", "gpt-4o-mini"], ["db", "check"], ["db", "current"], ["doctor"], ["aggregate"]),
)
"""Commands that read a store."""
ALL_IN_ONE = """
import sys
from taskpilot_obs.cli import main
for command in {commands!r}:
    sys.argv = ["taskpilot-obs", *command]
    print("$", *command)
    try:
        main()
    except SystemExit as ended:
        assert ended.code in (None, 0), (command, ended.code)
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with hostile, wide and long names, and costs that are partly unknown."""
    where, now = sqlite_url(tmp_path_factory.mktemp("store")), datetime.now(UTC)
    exporter = StoreExporter(where)
    for number, name in enumerate(NAMES):
        moment, known = now - timedelta(minutes=number), Decimal("0.000048") if number else None
        model = {"request_model": LONG_MODEL, "response_model": LONG_MODEL} if number == 1 else {}
        exporter.export([llm_call(moment, cost=known, tenant=name, user=name, agent=name, request_id=REQUEST, **model)])
    exporter.shutdown(1.0)
    return where


# --- help ------------------------------------------------------------------------------------------------------------


def pages(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group, with the words that name it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from pages(inner, (*path, name))


PAGES = dict(pages(get_command(PROGRAM)))


@pytest.mark.parametrize("path", PAGES, ids=" ".join)
def test_help_is_whole_at_eighty_columns(path: tuple[str, ...]) -> None:
    """No line is too long, and no option, command or word of its description is cut or left out."""
    shown = CliRunner().invoke(PROGRAM, [*path, "--help"], env={"COLUMNS": "80"}).output
    assert max(map(cell_len, shown.splitlines())) <= 80
    together = re.sub(r"\s+", "", shown)
    command = PAGES[path]
    texts = [command.help, *(option.help for option in command.params if getattr(option, "help", None))]
    for word in " ".join(text or "" for text in texts).split():
        assert word in together, word
    for option in command.params:
        assert all(name in shown for name in option.opts if name.startswith("-"))
    for name, inner in getattr(command, "commands", {}).items():
        if inner.hidden:
            continue
        first = re.split(r"\. |\.$|\n\n", inner.help)[0]
        assert re.sub(r"\s+", "", name + first) in together


# --- every command ---------------------------------------------------------------------------------------------------


def all_commands(url: str, **variables: str) -> dict[str, str]:
    """What each command writes to a pipe in such an environment."""
    commands = [[*command, "--store", url] for command in COMMANDS]
    environ = {**os.environ, "TASKPILOT_OBS_STORE": "", "COLUMNS": "", **variables}
    asked = [sys.executable, "-c", ALL_IN_ONE.format(commands=commands)]
    done = subprocess.run(asked, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    parts = re.split(r"^\$ (.*) --store .*\n", done.stdout.decode(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_fits_eighty_columns(url: str) -> None:
    """With `COLUMNS=80` tables fit, IDs are whole, and nothing that is printed commands a terminal."""
    found = all_commands(url, COLUMNS="80")
    for command, shown in found.items():
        tables = [line for line in shown.splitlines() if "  " in line and not line.startswith("ok ")]
        assert max(map(cell_len, tables), default=0) <= 80, command
        assert all(line.isprintable() for line in shown.split("\n")), command
    assert REQUEST in found["calls"]
    assert "left out at this width" in found["calls"]


def test_every_command_in_ascii(url: str) -> None:
    """In an encoding without other signs costs read `>=`, names are escaped, and tables stay aligned."""
    found = all_commands(url, PYTHONIOENCODING="ascii", PYTHONUTF8="0", NO_COLOR="1")
    for command, shown in found.items():
        assert shown.isascii(), command
        assert "\\u2265" not in shown, command
        for table in shown.split("\n\n"):
            rows = [line.replace("-+-", "-|-") for line in table.splitlines() if "|" in line or "-+-" in line]
            bars = {tuple(at for at, sign in enumerate(row) if sign == "|") for row in rows}
            assert len(bars) <= 1, (command, table)
    assert ">= $0.000096" in found["costs"]


def test_no_colour_where_none_is_wanted(url: str) -> None:
    """`NO_COLOR` keeps colours away even where they are forced, and progress stays out of a pipe then."""
    for command, shown in all_commands(url, NO_COLOR="1", FORCE_COLOR="1", TERM="xterm-256color").items():
        assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7])(?:;\d+)*m", shown), command


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["compare", "--experiment"], ["runs"], ["stats", "--tenant"]], ids=str)
def test_an_argument_that_is_no_text(url: str, command: list[str]) -> None:
    """Bytes that the shell's encoding cannot decode end in a sentence or an empty answer, not in a traceback."""
    asked = [sys.executable, "-c", "from taskpilot_obs.cli import main; main()"]
    done = subprocess.run([*asked, *command, b"\xff\xfe", "--store", url], capture_output=True, check=False)
    assert done.returncode in (0, 1, 2)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["budgets", "--file", "{missing}", "--store", "{url}"],
        ["token", "list", "--file", "{missing}"],
        ["bench", "--prices", "{missing}", "--demo"],
        ["price", "gpt-4o", "--prices", "{missing}"],
        ["db", "upgrade", "--store", "sqlite:///{missing}/x.db"],
        ["signals", "--url", "http://127.0.0.1:1/metrics"],
        ["signals", "--bearer-token-file", "{missing}"],
        ["signals", "--ca-file", "{missing}"],
        ["doctor", "--url", "http://127.0.0.1:1/metrics"],
        ["report", "{missing}/x.md", "--store", "{url}"],
        ["export", "{missing}/x.csv", "--store", "{url}"],
        ["audit", "verify", "{missing}"],
        ["audit", "prune", "{missing}", "--keep", "1d"],
        ["bench", "--resume", "{missing}"],
        ["bench", "--providers", "openai/gpt-4o", "--tasks", "{missing}"],
        ["rules", "render", "--out", "/dev/null/x"],
        ["export-assets", "/dev/null/x"],
    ],
    ids=" ".join,
)
def test_errors_have_no_numbers_of_the_system(url: str, tmp_path: Path, command: list[str]) -> None:
    """What cannot be read, written or reached is explained in words: no `[Errno 2]`, and no traceback."""
    known = {"missing": str(tmp_path / "missing"), "url": url}
    shown = CliRunner().invoke(PROGRAM, [part.format(**known) for part in command], env={"TASKPILOT_OBS_STORE": ""})
    assert shown.exit_code in (1, 2, 4), shown.output
    assert shown.exception is None or isinstance(shown.exception, SystemExit)
    assert "Errno" not in shown.output
    assert len(shown.output) > 20
    assert not (tmp_path / "missing").exists(), "a wrong path must not be made"


def test_a_wrong_duration_is_wrong_usage(tmp_path: Path) -> None:
    """`audit` names the option whose duration cannot be read, before it looks at a log."""
    for command in (["query", str(tmp_path), "--since", "never"], ["prune", str(tmp_path), "--keep", "never"]):
        shown = CliRunner().invoke(PROGRAM, ["audit", *command])
        assert shown.exit_code == 2
        assert f"{command[2]}: given 'never'" in shown.output
        assert "audit-log-unreadable" not in shown.output
