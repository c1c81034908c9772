"""Stable codes of warnings, exceptions and findings: the code of the library and the table of the page agree."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest

from taskpilot_obs import exceptions, record_llm_call
from taskpilot_obs.doctor import Finding, Level
from taskpilot_obs.exceptions import TaskpilotError
from taskpilot_obs.semconv import WARNING_CODES, WarningCode
from taskpilot_obs.testing import fresh_recorder

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = re.findall(r'^\| <a id="([\w-]+)"></a>`([\w-]+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|$', PAGE, re.MULTILINE)
SOURCES = [*ROOT.glob("taskpilot_obs/**/*.py"), *ROOT.glob("integrations/*/taskpilot_obs_*/**/*.py")]
FINDINGS = [
    *ROOT.glob("taskpilot_obs/doctor/*.py"),
    ROOT / "integrations/opentelemetry/taskpilot_obs_opentelemetry/findings.py",
]


def documented(*kinds: str) -> set[str]:
    return {code for _, code, kind, *_ in ROWS if kind in kinds}


def errors() -> list[type[TaskpilotError]]:
    found = [value for value in vars(exceptions).values() if isinstance(value, type)]
    return [kind for kind in found if issubclass(kind, TaskpilotError)]


def checks() -> set[str]:
    """The names of all checks of the doctor, as its source spells them."""
    names: set[str] = set()
    for path in FINDINGS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            given: ast.AST | None = None
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"ok", "warning", "problem", "Finding"}:
                given = node.args[0]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith(("check", "(check")):
                given = node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CHECK":
                given = node.value
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                names.add(given.value)
    return names


def test_each_code_has_one_row_and_one_anchor() -> None:
    """A code has one row, whose anchor is the code itself, and no heading of the page has the same anchor."""
    codes = [code for _, code, *_ in ROWS]
    anchors = re.findall(r'\{#([\w-]+)\}|<a id="([\w-]+)">', PAGE)
    assert len(codes) == len(set(codes)) == PAGE.count('<a id="')
    assert all(anchor == code for anchor, code, *_ in ROWS)
    assert len(anchors) == len(set(anchors))


def test_warnings_match_the_table() -> None:
    """The codes of log lines are those of the table, and each stands in a line of the library."""
    assert documented("warning") == set(WARNING_CODES)
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    names = {name: value for name, value in vars(WarningCode).items() if name.isupper()}
    unused = [name for name, value in names.items() if f"WarningCode.{name}" not in text and f"[{value}]" not in text]
    assert unused == []


def test_every_warning_of_the_log_has_a_code() -> None:
    """A line of the log from a warning on ends with a code."""
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"_?logger\.(warning|error|exception|critical)|logging\.getLogger\(.*\)\.exception",
                ast.unparse(node.func),
            ):
                assert "WarningCode." in ast.unparse(node) or "[not-instrumented]" in ast.unparse(node), path


def test_exceptions_match_the_table() -> None:
    """Each exception has a code of its own, and its row names the class."""
    codes = {kind.stable_code: kind.__name__ for kind in errors()}
    assert len(codes) == len(errors())
    assert documented("refusal", "error") == set(codes)
    for _, code, kind, what, _ in ROWS:
        if kind in {"refusal", "error"}:
            assert f"`{codes[code]}`" in what


def test_findings_match_the_table() -> None:
    """Each check of the doctor has a code, which is its name."""
    assert documented("finding") == {Finding(check, Level.OK, "").code for check in checks()}


def test_a_line_of_the_log_ends_with_its_code(caplog: pytest.LogCaptureFixture) -> None:
    """What the application sees in its log ends with the code in square brackets."""
    with caplog.at_level(logging.WARNING), fresh_recorder() as recorder:
        record_llm_call(model="a-model-that-has-no-price", usage={"input_tokens": 1, "output_tokens": 1})
        recorder.drain()
    assert any(line.endswith(f"[{WarningCode.NO_PRICE}]") for line in caplog.messages)
