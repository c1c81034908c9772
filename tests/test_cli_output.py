"""What commands print: safe on a terminal, whole at any width, readable in a spreadsheet."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest
from _stored import llm_call, sqlite_url
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from taskpilot_obs import cli
from taskpilot_obs._support.figures import known_cost, ms, percent, seconds, usd
from taskpilot_obs._support.visible import csv_cell, printable
from taskpilot_obs.cli._tables import Column, ColumnKind, FittedTable
from taskpilot_obs.cli._text import escaped_json
from taskpilot_obs.store import StoreExporter

MAIN = [sys.executable, "-c", "from taskpilot_obs.cli import main; main()"]
HOSTILE = (
    "\\[/x]",
    "[bold red]x[/]",
    "\x1b]0;pwned\x07\x1b[2J",
    "a\u202egnp.exe",
    "\u200bzero\u2066",
    "\x9b31m",
    "a\nb\r",
)
FORMULAS = ("=1+1", "+1", "-1+2", "@sum(a1)", "\t=1", "\uff1d1")
STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
FIGURE = re.compile(r"\$[\d,.]+|\d[\d,.]* (?:%|ms|s|min)(?![\w])")
LONG = "a-tenant-with-a-name-that-is-longer-than-any-terminal-should-have-to-show-on-a-single-line-of-text"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store in which tenants, agents and models have the worst names."""
    where = sqlite_url(tmp_path_factory.mktemp("store"))
    exporter = StoreExporter(where)
    now = datetime.now(UTC)
    for number, named in enumerate((*HOSTILE, *FORMULAS, LONG)):
        moment = now - timedelta(minutes=number)
        exporter.export(
            [
                llm_call(
                    moment,
                    cost=Decimal("0.000048"),
                    tenant=named,
                    agent=named,
                    request_model=named,
                    response_model=named,
                )
            ]
        )
    exporter.export([llm_call(now, cost=Decimal("123456.78"), tenant="big", agent="big")])
    exporter.shutdown(1.0)
    return where


def in_a_pipe(*arguments: str, columns: str = "") -> str:
    """What a command writes to a pipe."""
    environ = {**os.environ, "COLUMNS": columns, "TASKPILOT_OBS_STORE": ""}
    done = subprocess.run([*MAIN, *arguments], env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr == ""
    return done.stdout


def on_a_terminal(*arguments: str, columns: int = 80) -> str:
    """What a command writes to a terminal of that many columns, standard error included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "TASKPILOT_OBS_STORE": ""}
    environ.pop("COLUMNS", None)
    with subprocess.Popen([*MAIN, *arguments], env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        written = b"".join(iter(lambda: _read(ours), b""))
        child.wait(60)
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux reports that the other end was closed
            raise
        return b""


def without_styles(text: str) -> str:
    """Text of a terminal without the colours and cursor movements that rich writes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


# --- text ------------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=60))
def test_printable_text_is_one_visible_line(text: str) -> None:
    """Whatever a name holds, what is printed of it has no character that a terminal obeys or hides."""
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(character.isprintable() or character in "\u200c\u200d" for character in shown)
    shown.encode()


@pytest.mark.parametrize("text", ["Zoë 日本語", "क्‍ष", "a b", "[bold]", "👩‍🚀"])
def test_printable_text_stays_as_it_is(text: str) -> None:
    """Names of any script, and markup, are not touched."""
    assert printable(text) == text


@given(st.recursive(st.text(st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_escaped_json_is_the_same_json(value: object) -> None:
    """Escaping changes no value, and leaves nothing that a terminal obeys."""
    text = escaped_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.sampled_from(FORMULAS) | st.text())
def test_no_cell_is_a_formula(text: str) -> None:
    """Text in CSV never begins as a formula does, and stays readable behind the apostrophe."""
    cell = csv_cell(text)
    assert not cell.lstrip().startswith(STARTS)
    assert cell.removeprefix("'") == printable(text) or not text.lstrip().startswith(STARTS)


@pytest.mark.parametrize(("value", "cell"), [(-5, "-5"), (Decimal("-7.5E-7"), "-0.00000075"), (None, ""), (0.5, "0.5")])
def test_numbers_stay_numbers(value: object, cell: str) -> None:
    """A negative number is not taken for a formula, and money has no exponent."""
    assert csv_cell(value) == cell


def test_commands_print_through_one_module() -> None:
    """No command has a console or a `print` of its own, so that nothing reaches a terminal unchecked."""
    folder = Path(cli.__file__).parent
    free = {"__init__.py", "_output.py", "_program.py", "_demo_view.py"}  # they print what is ours, or a picture
    own = re.compile(r"(?<![\w.])(?:print|Console)\((?!as_markdown)|typer\.echo\(")
    assert [path.name for path in folder.glob("*.py") if path.name not in free and own.search(path.read_text())] == []


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0"), ("0.000048", "$0.000048"), ("4.8e-05", "$0.000048"), ("0.3", "$0.30"), ("0.1234", "$0.123"),
        ("0.9996", "$1.00"), ("1234.5", "$1,234.50"), ("1e9", "$1,000,000,000.00"), ("-0.02", "-$0.02"),
    ],
)  # fmt: skip
def test_money_is_written_for_people(amount: str, shown: str) -> None:
    """Cents from a dollar on, three digits below, and never an exponent."""
    assert usd(Decimal(amount)) == usd(float(amount)) == shown


@given(st.floats(min_value=0, max_value=1e15))
def test_no_figure_has_an_exponent(figure: float) -> None:
    """No figure of any size is written with an exponent, and none that exists is written as nothing."""
    for shown in (usd(figure), percent(figure), ms(figure), seconds(figure)):
        assert "e" not in shown.lower()
        assert figure == 0 or re.search(r"[1-9]", shown)


@pytest.mark.parametrize(
    ("figure", "shown"),
    [(0.0, "0.0 %"), (0.01, "< 0.1 %"), (98.44, "98.4 %"), (99.99, "> 99.9 %"), (100.0, "100.0 %"), (None, "-")],
)
def test_almost_all_is_not_all(figure: float | None, shown: str) -> None:
    """A rate is shown as 0 or 100 only if it is."""
    assert percent(figure) == shown


@pytest.mark.parametrize(
    ("figure", "shown"), [(0.0, "0 ms"), (12.34, "12.3 ms"), (999.9, "1 s"), (1_500.0, "1.5 s"), (7_200_000.0, "2 h")]
)
def test_durations_have_the_unit_that_fits(figure: float, shown: str) -> None:
    """Milliseconds, seconds, minutes, hours or days, with three digits."""
    assert ms(figure) == shown


# --- tables ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(get_args(ColumnKind)), st.integers(0, 3)), min_size=1, max_size=8),
    st.lists(st.integers(1, 60), min_size=8, max_size=8),
    st.integers(20, 120),
)
def test_a_table_never_cuts_a_figure(columns: list[tuple[ColumnKind, int]], lengths: list[int], width: int) -> None:
    """At any width every shown figure, ID or time is whole, and essential columns are always there."""
    cells = [f"{number}" * length for number, length in zip(range(1, 9), lengths, strict=True)][: len(columns)]
    made = [Column(f"c{number}", kind, rank) for number, (kind, rank) in enumerate(columns)]
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(FittedTable("", made, [cells]))
    text = out.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    for column, cell in zip(made, cells, strict=True):
        left_out = re.search(rf"left out.*\b{column.title}\b", text, re.DOTALL)
        assert column.rank > 0 or not left_out
        if column.kind != "name" and not left_out:
            assert cell in text or (len(cell) > width - 4 and cell in text.replace("\n", ""))
    fits = all(len(line.rstrip()) <= width for line in text.splitlines())
    assert fits


COMMANDS = (["stats"], ["costs"], ["tenants"])


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_hostile_names_do_no_harm(url: str, command: list[str]) -> None:
    """In a pipe as on a terminal, names are shown and command nothing."""
    for columns in ("", "80", "200"):
        shown = in_a_pipe(*command, "--store", url, columns=columns)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert all(named in shown for named in ("\\[/x]", "[bold red]x[/]"))
    shown = without_styles(on_a_terminal(*command, "--store", url))
    assert all(line.isprintable() for line in shown.split("\n"))


@pytest.mark.parametrize("form", ["--json", "--csv"])
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_hostile_names_do_no_harm_in_data(url: str, command: list[str], form: str) -> None:
    """JSON escapes what a terminal would obey and keeps the name; no cell of CSV is a formula."""
    shown = in_a_pipe(*command, "--store", url, form)
    assert all(line.isprintable() for line in shown.split("\n"))
    if form == "--json":
        assert HOSTILE[2] in json.dumps(json.loads(shown), ensure_ascii=False).encode().decode("unicode_escape")
    else:
        cells = [cell for row in csv.reader(io.StringIO(shown)) for cell in row]
        assert [cell for cell in cells if cell.lstrip().startswith(tuple("=+-@"))] == []
        assert "'=1+1" in cells


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_eighty_columns_keep_every_figure(url: str, command: list[str]) -> None:
    """At 80 columns lines fit, each figure is one that the pipe shows whole, and costs are there for every row."""
    wide = set(FIGURE.findall(in_a_pipe(*command, "--store", url)))
    narrow = without_styles(on_a_terminal(*command, "--store", url))
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    assert set(FIGURE.findall(narrow)) <= wide
    assert "$0.000048" in narrow
    assert "$123,456.78" in narrow


@pytest.mark.parametrize(
    ("cost", "coverage", "shown"),
    [("0", 0.0, "-"), ("0.5", 0.0, "≥ $0.50"), ("0.5", 0.9, "≥ $0.50"), ("0", 1.0, "$0"), ("0.5", None, "$0.50")],
)
def test_a_cost_says_whether_it_is_whole(cost: str, coverage: float | None, shown: str) -> None:
    """A cost that is not known is never shown as nothing, and one that lacks calls is at least what it shows."""
    assert known_cost(Decimal(cost), coverage) == shown


def test_unpriced_calls_cost_nothing_that_is_known(tmp_path: Path) -> None:
    """`stats`, `costs` and `tenants` mark the cost of a model without a price, and titles stay on one line."""
    where = sqlite_url(tmp_path)
    exporter = StoreExporter(where)
    now = datetime.now(UTC)
    exporter.export([llm_call(now, cost=None, tenant="dark", request_model="no-price", agent="a")])
    exporter.export([llm_call(now, cost=Decimal("0.02"), tenant="lit", request_model="gpt-4o", agent="a")])
    exporter.shutdown(1.0)
    for command, unknown in (("stats", "no-price"), ("costs", "no-price"), ("tenants", "dark")):
        shown = without_styles(on_a_terminal(command, "--store", where))
        (line,) = (line for line in shown.splitlines() if unknown in line)
        assert " - " in line
        assert "$0 " not in line
    assert "≥ $0.02" in in_a_pipe("stats", "--store", where).splitlines()[3]
    assert "≥ $0.02 in 2 requests" in in_a_pipe("costs", "--store", where)
    titles = without_styles(on_a_terminal("tenants", "--store", where)).splitlines()
    assert titles[0].rstrip().endswith("in total")


def test_stats_name_the_kind_of_each_row(url: str) -> None:
    """Each row begins with what its name names."""
    kinds = {line.split()[0] for line in in_a_pipe("stats", "--store", url).splitlines()[3:] if line.strip()}
    assert kinds == {"all", "provider", "model", "agent"}


def test_usage_errors_are_printable(url: str) -> None:
    """An error that quotes what was typed, or what a file holds, commands nothing and reads no markup."""
    for arguments in (["stats", "--store", url, "--period", "\x1b[2J[/x]"], ["\x1b[2J[/x]"], ["stats", "--\x1b[2J"]):
        done = subprocess.run([*MAIN, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stderr


def test_a_path_in_an_error_can_be_copied(tmp_path: Path) -> None:
    """An error stands in no box and is not wrapped, so that a long path in it stays whole on a narrow terminal."""
    missing = str(tmp_path / ("long-" * 30) / "prices.toml")
    for command in (["price", "gpt-4o", "--prices", missing], ["stats", "--store", f"sqlite:///{missing}"]):
        shown = without_styles(on_a_terminal(*command, columns=40))
        assert missing in shown
        assert not set("│╭╰") & set(shown)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_old_encoding_is_no_crash(url: str, encoding: str) -> None:
    """What a terminal's encoding lacks is written otherwise."""
    environ = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*MAIN, "tenants", "--store", url], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?31m" in done.stdout


# --- progress --------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_command(url: str, tmp_path: Path) -> Callable[[str], list[str]]:
    """The arguments of a command that may take long."""
    log = tmp_path / "audit.jsonl"
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"from taskpilot_obs import *; configure(audit_log={str(log)!r}); record_audit_event('e')",
        ],
        check=True,
    )
    known = {
        "summing up": ["aggregate", "--store", url],
        "upgrading": ["db", "upgrade", "--store", url],
        "writing the report": ["report", str(tmp_path / "r.md"), "--store", url],
        "verifying": ["audit", "verify", str(log)],
        "pruning": ["audit", "prune", str(log), "--keep", "1d"],
        "writing files": ["export-assets", str(tmp_path / "assets")],
    }
    return known.__getitem__


@pytest.mark.parametrize(
    "doing", ["summing up", "upgrading", "writing the report", "verifying", "pruning", "writing files"]
)
def test_progress_is_for_terminals(slow_command: Callable[[str], list[str]], doing: str) -> None:
    """Commands that may take long tell a terminal what they do, and a pipe nothing."""
    arguments = slow_command(doing)
    assert doing in without_styles(on_a_terminal(*arguments))
    again = [*arguments, "--overwrite"] if doing == "writing files" else arguments
    assert doing not in in_a_pipe(*again)
