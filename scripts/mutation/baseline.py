"""Which tests run which lines of the changed modules, and how long each test takes."""

from __future__ import annotations

import ast
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import pytest
from coverage import Coverage

from scripts.mutation.model import Change

SLOWEST_SECONDS: Final = 2.0
"""Processor time after which a test is cut, and left out."""
NO_TEST: Final = ""
"""coverage.py's context for what runs outside tests."""


class Measured(NamedTuple):
    """What one run of a file of tests showed."""

    names: Sequence[str]
    """Of all its tests."""
    seconds: Mapping[str, float]
    """Processor time of each test that passed."""
    tests: Mapping[str, Mapping[str, Sequence[int]]]
    """By module and line: places in `names`."""


class Baseline(NamedTuple):
    """What one run of all tests showed."""

    files: Sequence[Measured]
    imports: Mapping[str, frozenset[int]]
    """The lines that the import of a module runs."""

    def runs_at_import(self, change: Change) -> bool:
        """Whether an import runs the changed statement."""
        return not self.imports.get(str(change.path), frozenset()).isdisjoint(_lines(change))

    def tests_of(self, change: Change, limit: float) -> list[str]:
        """The tests that run the changed statement and take so many seconds together, the best first."""
        return self._chosen(change, map(str, _lines(change)), limit)

    def tests_of_module(self, change: Change, limit: float) -> list[str]:
        """The tests that run any line of the changed module and take so many seconds together, the best first."""
        lines = {line for each in self.files for line in each.tests.get(str(change.path), ())}
        return self._chosen(change, lines, limit)

    def seconds_of(self, tests: Iterable[str]) -> float:
        """How long these tests take."""
        every = {test: seconds for each in self.files for test, seconds in each.seconds.items()}
        return sum(every[test] for test in tests)

    def _chosen(self, change: Change, lines: Iterable[str], limit: float) -> list[str]:
        wanted = list(lines)
        found: dict[str, float] = {}
        for each in self.files:
            by_line = each.tests.get(str(change.path), {})
            names = {each.names[place] for line in wanted for place in by_line.get(line, ())}
            found |= {name: each.seconds[name] for name in names & each.seconds.keys()}
        return list(_affordable(_in_order(found, _words(change.difference)), found, limit))


def _words(difference: str) -> frozenset[str]:
    """The longer names and words in the changed lines."""
    return frozenset(re.findall(r"\w{5,}", difference.lower()))


def _in_order(seconds: Mapping[str, float], words: frozenset[str]) -> list[str]:
    """The tests named like the changed lines; then the fastest case of each test, the second fastest, and so on.

    Cases of a test are much alike, unless their parameter is what was changed.
    """
    times = Counter[str]()
    places = []
    for test in sorted(seconds, key=seconds.__getitem__):
        name = test.rpartition("::")[2].lower()
        function = name.partition("[")[0]
        times[function] += 1
        alike = sum(len(word) for word in words if word in name)
        places.append((-alike, times[function], seconds[test], test))
    return [test for *_, test in sorted(places)]


def _affordable(tests: Iterable[str], seconds: Mapping[str, float], limit: float) -> Iterable[str]:
    """At least one test, and as many as take no longer than the limit."""
    total = 0.0
    for test in tests:
        if total and total + seconds[test] > limit:
            return
        total += seconds[test]
        yield test


def _lines(change: Change) -> range:
    return statement_lines(change.path)[change.line]


@cache
def statement_lines(path: Path) -> Mapping[int, range]:
    """The lines of the innermost statement, or of its head, for each line of a module."""
    found: dict[int, range] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # from the outside to the inside
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
            found |= dict.fromkeys(range(first, (node.end_lineno or first) + 1), range(first, _last(node) + 1))
    return found


def _last(node: ast.stmt) -> int:
    body = getattr(node, "body", None) or getattr(node, "cases", None)
    if not body:
        return node.end_lineno or node.lineno
    start = body[0].pattern.lineno if isinstance(body[0], ast.match_case) else body[0].lineno
    return max(node.lineno, start - 1)


def covering(paths: Iterable[Path]) -> Coverage:
    """Coverage of these modules, kept in memory."""
    return Coverage(data_file=None, config_file=False, include=[str(path) for path in paths], concurrency="thread")


class Measuring:
    """A pytest plugin that notes the lines which each test runs, and those which the fixtures it shares run."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(map(str, paths))
        self.coverage = covering(paths)
        self._current = NO_TEST
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._users = defaultdict[str, set[str]](set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Generator[None, object, object]:
        """Name the lines of the test by its identifier."""
        self._enter(item.nodeid)
        began = time.process_time()
        for definitions in item._fixtureinfo.name2fixturedefs.values():  # noqa: SLF001 - pytest has no public way
            for each in definitions:
                self._users[_name(each)].add(item.nodeid)
        signal.signal(signal.SIGVTALRM, _too_slow)
        signal.setitimer(signal.ITIMER_VIRTUAL, SLOWEST_SECONDS)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self._seconds[item.nodeid] = time.process_time() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        """Name the lines of a shared fixture by the fixture: they count for each test that uses it."""
        if fixturedef.scope == "function":
            return (yield)
        test = self._current
        self._enter(_name(fixturedef))
        try:
            return (yield)
        finally:
            self._enter(test)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Leave out what fails or skips."""
        if report.outcome != "passed":
            self._failed.add(report.nodeid)

    def found(self) -> Measured:
        """What was measured since the start of the coverage."""
        data = self.coverage.get_data()
        names = sorted(self._seconds)
        places = {name: place for place, name in enumerate(names)}
        passed = {test: round(seconds, 4) for test, seconds in self._seconds.items() if test not in self._failed}
        return Measured(
            names, passed, {path: self._tests(data.contexts_by_lineno(path), places) for path in self.paths}
        )

    def _enter(self, context: str) -> None:
        self._current = context
        self.coverage.switch_context(context)

    def _tests(self, contexts: Mapping[int, list[str]], places: Mapping[str, int]) -> dict[str, list[int]]:
        return {
            str(line): sorted({places[test] for each in names for test in self._users.get(each, {each}) if test})
            for line, names in contexts.items()
        }


def _too_slow(*_signal: object) -> NoReturn:
    pytest.fail(f"takes more than {SLOWEST_SECONDS:g} s")


def _name(fixture: Any) -> str:
    return f"fixture {fixture.baseid}::{fixture.argname}"
