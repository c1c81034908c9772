"""docs/promises.md: each promise stands on its page and has a proof; two of them are proved here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _scripts import load

ROOT = Path(__file__).parent.parent
WRITER = load("write_promises")
KEPT = json.loads((ROOT / "tests" / "figures.json").read_text(encoding="utf-8"))
PROMISES = {each.name: each for each in WRITER.promises()}
WATCHED = """
import json, sys, threading
from taskpilot_obs import configure, flush, golden_signals, observe_agent, observe_tool, record_feedback, track_llm
from taskpilot_obs.stats import get_stats

seen, watching = [], False

def note(event, arguments):
    of_the_caller = threading.current_thread() is main
    if watching and (event.startswith("socket.") or event in ("open", "sqlite3.connect") and of_the_caller):
        seen.append([event, of_the_caller, str(arguments[0])[:80]])

sys.addaudithook(note)
main = threading.current_thread()

@observe_tool
def search(query):
    return query

@observe_agent("Planner")
def plan(request):
    with track_llm(provider="openai", model="gpt-4o-mini") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
    return search(request)

configure(audit_log="audit.jsonl", store="sqlite:///telemetry.db")
plan("warm up")
assert flush()
watching = True
for number in range(200):
    plan(str(number))
watching = False
assert flush()
calls = [event for event in seen if event[1]]
watching = True
golden_signals(), get_stats("1h")
watching = False
print(json.dumps({"of the caller": calls, "network": [each for each in seen if each[0].startswith("socket.")]}))
"""


@pytest.mark.parametrize("name", PROMISES)
def test_a_promise_stands_on_its_page_and_has_a_proof(name: str) -> None:
    """The sentence is there word for word, and a test or a benchmark proves it."""
    promise = PROMISES[name]
    text = " ".join((ROOT / promise.page).read_text(encoding="utf-8").split())
    assert " ".join(promise.says.split()) in text
    assert WRITER.proofs().get(name) or promise.measured
    assert promise.limit


@pytest.mark.parametrize("promise", WRITER.stated(), ids=lambda promise: promise.name)
def test_a_figure_is_measured(promise: Any) -> None:
    """No figure is typed by hand: its digits come from what a run kept, and a test of the promise states them."""
    assert not re.search(r"\d", re.sub(r"{[^}]*}", "", promise.figure))
    assert WRITER.filled(promise).figure.count("{") == 0
    if promise.name in KEPT:
        sources = [(ROOT / each.path).read_text(encoding="utf-8") for each in WRITER.proofs()[promise.name]]
        assert any(f'measured("{promise.name}"' in " ".join(each.split()) for each in sources)


def test_every_mark_names_a_promise() -> None:
    """A test that proves what is promised nowhere is marked wrongly."""
    assert set(WRITER.proofs()) <= set(PROMISES)


def test_the_page_is_current() -> None:
    """`make docs` would not change the page."""
    assert WRITER.PAGE.read_text(encoding="utf-8") == WRITER.page(), "run `make docs`"


@pytest.mark.promise("no-network", "no-io-for-callers")
def test_callers_open_no_file_and_nothing_opens_a_connection(tmp_path: Path) -> None:
    """By Python's audit events of 200 runs, with audit log, metrics and store."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"of the caller": [], "network": []}
