"""docs/mutation.md follows from what was kept of the last runs, and the way of trying a change does what it states."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from scipy.stats import binomtest

from scripts.mutation import report
from scripts.mutation.areas import AREAS
from scripts.mutation.baseline import Baseline, Measured, statement_lines
from scripts.mutation.live import LiveFunctions, NotAppliedError
from scripts.mutation.model import Change

SOURCE = """
from functools import cache


def adding(amount, more=0):
    def add(number):
        return number + amount + more
    return add


class Doubled:
    def __init__(self, value):
        self.value = value

    @property
    def twice(self):
        return self.value + self.value


@cache
def sign(
    number,
):
    if number < 0:
        return "-"
    return "+"
"""


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    """SOURCE, imported."""
    path = tmp_path / "changed_module.py"
    path.write_text(SOURCE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def applied(module: ModuleType, old: str, new: str) -> None:
    """Change SOURCE in the running process."""
    path = Path(str(module.__file__))
    assert SOURCE.count(old) == 1
    line = SOURCE[: SOURCE.index(old)].count("\n") + 1
    LiveFunctions([path]).apply(Change(path, "", "", 1, line, SOURCE.replace(old, new)))


def test_the_page_is_current() -> None:
    """The page follows from the kept results and reasons; `python -m scripts.mutation --page` would not change it."""
    assert report.PAGE.read_text(encoding="utf-8") == report.page(), "run `python -m scripts.mutation --page`"


def test_the_page_states_how_many_areas_and_changes_were_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Areas that were not run are not among them, and no line is longer than the others."""
    one = {"date": "2026-11-30", "commit": "1a2b3c4", "made": 1_200, "tried": 15, "how": {}, "survivors": []}
    monkeypatch.setattr(report, "kept", lambda: {"areas": {"pricing": one, "safety": one}, "control": None})
    assert f"2 of the {len(AREAS)} areas below were tried. They have 2,400 changes, of which 30 were" in report.page()
    every = dict.fromkeys(AREAS, one | {"tried": 1_200})
    monkeypatch.setattr(report, "kept", lambda: {"areas": every, "control": None})
    assert f"All {len(AREAS)} areas below were tried. They have" in report.page()
    paragraph = next(each for each in report.page().split("\n\n") if "What the score is of" in each)
    assert ", all of which were tried." in paragraph.replace("\n", " ")
    assert all(80 < len(line) <= 120 for line in paragraph.splitlines()[:-1])


def test_each_reason_is_of_a_kind_that_the_page_explains() -> None:
    """A reason names its function, a kind of the page's list, and says more than the kind."""
    stated = tomllib.loads(report.REASONS.read_text(encoding="utf-8"))["survivor"]
    assert {each["kind"] for each in stated} <= report.KINDS.keys()
    assert all(each["function"] and len(each["reason"]) > 10 for each in stated)


def test_a_survivor_without_a_reason_counts_as_open() -> None:
    """A survivor that has no reason yet is on the page as open, and a reason of its function is taken for it."""
    survivor = {"function": "a.b", "change": "- x + y"}
    assert report.reason_of(survivor, {}).kind == "open"
    assert report.reason_of(survivor, {("a.b", ""): report.Reason("cost", "why")}) == ("cost", "why")
    one = {("a.b", ""): report.Reason("cost", "why"), ("a.b", "- x + y"): report.Reason("equivalent", "alike")}
    assert report.reason_of(survivor, one) == ("equivalent", "alike")


def test_an_equivalent_change_is_not_counted() -> None:
    """Ten changes, of which one is equivalent and two survive: seven of nine are killed."""
    assert str(report.Score(tried=10, equivalent=1, survive=2)).startswith("7 | 1 | 2 | 77.8 % |")


def test_the_page_states_what_the_control_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that failed without a change is named on the page, with the number of times."""
    control = {
        "date": "2026-11-30",
        "commit": "1a2b3c4",
        "tried": 780,
        "times": 2,
        "noticed": ["tests/test_a.py::test_b"],
    }
    monkeypatch.setattr(report, "kept", lambda: {"areas": {}, "control": control})
    paragraph = next(each for each in report.page().split("\n\n") if each.startswith("**Control.**")).replace("\n", " ")
    assert paragraph.startswith("**Control.** At `1a2b3c4`, 780 changes")
    assert paragraph.endswith("2 of them were noticed. `tests/test_a.py::test_b` failed.")


@pytest.mark.parametrize(("hits", "tries"), [(0, 40), (37, 40), (40, 40), (520, 600)])
def test_the_interval_is_wilsons(hits: int, tries: int) -> None:
    """The interval is that of scipy."""
    expected = binomtest(hits, tries).proportion_ci(method="wilson")
    assert report.wilson(hits, tries) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_change_reaches_what_exists_and_what_is_made_later(module: ModuleType) -> None:
    """Closures made before and after the change run the changed code."""
    add: Callable[[int], int] = module.adding(3)
    applied(module, "number + amount", "number - amount")
    assert add(10) == 7
    assert module.adding(1)(10) == 9
    applied(module, "number + amount + more", "None")
    assert add(10) is None


def test_a_change_reaches_decorated_functions(module: ModuleType) -> None:
    """Properties and cached functions run the changed code too."""
    applied(module, "self.value + self.value", "self.value - self.value")
    assert module.Doubled(4).twice == 0
    applied(module, "number < 0", "number <= 0")
    assert module.sign(0) == "-"


def test_a_change_of_a_closures_cells_is_refused(module: ModuleType) -> None:
    """A change that a living closure cannot take is reported, so that a new interpreter tries it."""
    add: Callable[[int], int] = module.adding(3)
    with pytest.raises(NotAppliedError):
        applied(module, "amount + more", "amount")
    assert add(1) == 4


def test_the_tests_of_a_change_are_those_of_its_statement(module: ModuleType) -> None:
    """A change is tried by the tests that run its statement, or its statement's head, one case of each test first."""
    path = Path(str(module.__file__))
    lines = statement_lines(path)
    head = SOURCE[: SOURCE.index("if number < 0")].count("\n") + 1
    assert lines[head] == range(head, head + 1)
    assert lines[head + 1] == range(head + 1, head + 2)
    names = ["failed", "fast[1]", "fast[2]", "other", "slow"]
    seconds = {"slow": 2.0, "fast[1]": 0.1, "fast[2]": 0.2, "other": 0.1}
    baseline = Baseline([Measured(names, seconds, {str(path): {str(head): [4, 2, 1, 0]}})], {str(path): frozenset([1])})
    at_head, behind = (Change(path, "", "", 1, line, "") for line in (head, head + 1))
    assert baseline.tests_of(at_head, limit=10) == ["fast[1]", "slow", "fast[2]"]
    assert baseline.tests_of(at_head, limit=1) == ["fast[1]"]
    assert baseline.tests_of(behind, limit=10) == []
    assert not baseline.runs_at_import(at_head)


def test_the_tests_named_like_the_change_come_first(module: ModuleType) -> None:
    """A case whose parameter stands in the changed lines is tried first, because cases differ by their parameters."""
    path = Path(str(module.__file__))
    line = SOURCE[: SOURCE.index("if number < 0")].count("\n") + 1
    names = ["t.py::test_fast", "t.py::test_read[given_tokens]", "t.py::test_read[spoken_tokens]"]
    seconds = dict(zip(names, (0.1, 0.2, 0.3), strict=True))
    baseline = Baseline([Measured(names, seconds, {str(path): {str(line): [0, 1, 2]}})], {})
    change = Change(path, "", '- get("spoken_tokens") + get("SPOKEN_TOKENS")', 1, line, "")
    assert baseline.tests_of(change, limit=10) == [names[2], names[0], names[1]]
    assert baseline.tests_of(change._replace(difference="- 1 + 2"), limit=10) == names


TESTED = """
import os
import changed_module

HERE = os.getpid()


def test_in_this_process_only():
    changed_module.sign(1)
    assert os.getpid() == HERE


def test_the_sign():
    assert changed_module.sign(-1) == "-"


def test_an_error():
    assert len(changed_module.sign(-1)) == 1


def test_the_end():
    changed_module.sign(-1)
"""
TRIALS = """
import json
from pathlib import Path
import pytest
from scripts.mutation.baseline import Baseline, Measured
from scripts.mutation.live import LiveFunctions
from scripts.mutation.model import Change
from scripts.mutation.trials import Trials


class Trying:
    def pytest_runtestloop(self, session):
        path, source = Path("changed_module.py").resolve(), Path("changed_module.py").read_text()
        line = source[: source.index("if number < 0")].count("\\n") + 1
        names = [each.nodeid for each in session.items]
        seconds = {name: 0.01 * place for place, name in enumerate(names, 1)}
        lines = {str(path): {str(line): list(range(len(names)))}}
        baseline = Baseline([Measured(names, seconds, lines)], {})
        for confirm in (True, False):
            trials = Trials(session, baseline, LiveFunctions([path]), confirm=confirm)
            for new in ("number <= -1", "number > 0", "len(number)", "os._exit(3)", "number < 0"):
                change = Change(path, "", "", 1, line, source.replace("number < 0", new))
                change = change.without_change() if new == "number < 0" else change
                verdict = trials.verdict(change)
                found.append([new, confirm, verdict.outcome, verdict.by.partition("::")[2], verdict.how])
            unreliable.update(trials.unreliable)
        return True


found, unreliable = [], set()
pytest.main(["-q", "-p", "no:cacheprovider", "test_tried.py"], plugins=[Trying()])
print("\\n" + json.dumps([found, sorted(unreliable)]))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, bool, str, str, str]], list[str]]:
    """What `Trials` made of five changes of SOURCE, first with the control of each failure, then without."""
    folder = tmp_path_factory.mktemp("tried")
    source = SOURCE.replace("from functools import cache", "import os\n\ncache = staticmethod")
    for name, text in {"changed_module": source, "test_tried": TESTED, "trials": TRIALS}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    root = Path(report.__file__).parent.parent.parent
    path = os.pathsep.join([str(folder), str(root)])
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "trials.py"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found, unreliable = json.loads(ran.stdout.splitlines()[-1])
    return [tuple(each) for each in found], unreliable


def test_a_failure_without_the_change_is_not_believed(
    tried: tuple[list[tuple[str, bool, str, str, str]], list[str]],
) -> None:
    """A test that fails in each fork kills no change, and hides none of the tests that do."""
    found, unreliable = tried
    assert [each[2:] for each in found if each[1]] == [
        ("survived", "", ""),
        ("killed", "test_the_sign", "assertion"),
        ("killed", "test_the_sign", "exception"),
        ("killed", "", "ended"),
        ("survived", "", ""),
    ]
    assert unreliable == ["test_tried.py::test_in_this_process_only"]


def test_the_control_shows_a_test_that_fails_without_a_change(
    tried: tuple[list[tuple[str, bool, str, str, str]], list[str]],
) -> None:
    """A run without changes, as `CONTROL=1` starts it, reports the test that fails in each fork."""
    found, _ = tried
    assert found[-1] == ("number < 0", False, "killed", "test_in_this_process_only", "assertion")
