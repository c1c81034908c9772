"""Tries a change by its tests, and believes a failure only if the same tests pass without the change."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

import pytest

from scripts.mutation.baseline import Baseline
from scripts.mutation.forks import ForkEndedError, in_fork
from scripts.mutation.live import LiveFunctions, NotAppliedError
from scripts.mutation.model import (
    ASSERTION,
    AT_IMPORT,
    ENDED,
    EXCEPTION,
    HUNG,
    KILLED,
    NOT_RUN,
    NOTICED,
    SURVIVED,
    Change,
    Failure,
    Verdict,
)

PATIENCE_SECONDS: Final = 10
"""A change has hung when its tests work, or wait for something, this much longer than four times their usual time."""
LONGEST_SECONDS: Final = 8.0
"""Processor time of the tests of one change, as it was with coverage: where there are more, the last are left out."""


class Trials:
    """Tries changes in forks of one pytest session."""

    def __init__(self, session: pytest.Session, baseline: Baseline, live: LiveFunctions, *, confirm: bool) -> None:
        self.unreliable: set[str] = set()
        """Tests that failed without a change too: they notice nothing any more."""
        self._session = session
        self._items: Mapping[str, pytest.Item] = {each.nodeid: each for each in session.items}
        self._baseline = baseline
        self._live = live
        self._confirm = confirm

    def verdict(self, change: Change) -> Verdict:
        """What becomes of the change."""
        tests = [each for each in self._baseline.tests_of(change, LONGEST_SECONDS) if each not in self.unreliable]
        at_import = self._baseline.runs_at_import(change)
        if not tests and not at_import:
            return Verdict(NOT_RUN)
        try:
            verdict = self._verdict(change, tests)
        except NotAppliedError:
            at_import, verdict = True, Verdict(SURVIVED)
        if verdict.outcome in NOTICED or not at_import:
            return verdict
        return Verdict(AT_IMPORT, tests=tuple(self._baseline.tests_of_module(change, LONGEST_SECONDS)))

    def _verdict(self, change: Change, tests: list[str]) -> Verdict:
        """Leaves out the tests that fail without the change too, until those that are left agree."""
        verdict = self._attempt(change, tests)
        while self._confirm and verdict.outcome in NOTICED:
            control = self._attempt(None, _up_to(verdict.by, tests))
            if control.outcome not in NOTICED:
                return verdict
            if control.by not in tests:
                return Verdict(SURVIVED, control.by, control.how)  # no single test is to blame
            self.unreliable.add(control.by)
            tests = [each for each in tests if each != control.by]
            verdict = self._attempt(change, tests)
        return verdict

    def _attempt(self, change: Change | None, tests: Sequence[str]) -> Verdict:
        def attempt() -> object:
            if change is not None:
                self._live.apply(change)
            return run(self._session, [self._items[each] for each in tests])

        return verdict_of(attempt, PATIENCE_SECONDS + 4 * self._baseline.seconds_of(tests)) if tests else SAME


SAME: Final = Verdict(SURVIVED)


def verdict_of(attempt: Any, patience: float) -> Verdict:
    """What becomes of a change by the first failure that `attempt` returns in a fork."""
    try:
        failure = in_fork(attempt, patience)
    except TimeoutError:
        return Verdict(HUNG)
    except ForkEndedError as ended:
        return Verdict(KILLED, str(ended), ENDED)
    return SAME if failure is None else Verdict(KILLED, *failure)


def _up_to(test: str, tests: list[str]) -> list[str]:
    return tests[: tests.index(test) + 1] if test in tests else tests


def run(session: pytest.Session, items: Sequence[pytest.Item], *, to_the_end: bool = False) -> Failure | None:
    """The first test that fails; those behind it are run only where that is asked for."""
    failures = Failures()
    session.config.pluginmanager.register(failures)
    for item, following in zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if failures.first is not None and not to_the_end:
            session._setupstate.teardown_exact(None)  # noqa: SLF001 - ends what the tests share
            break
    return failures.first


class Failures:
    """A pytest plugin that keeps the first failure."""

    def __init__(self) -> None:
        self.first: Failure | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep how the test failed too."""
        report = yield
        if report.failed and self.first is None:
            self.first = Failure(item.nodeid, _how(call))
        return report


def _how(call: pytest.CallInfo[None]) -> str:
    """An `assert`, `pytest.fail`, or `pytest.raises` that saw nothing; or another exception."""
    error = None if call.excinfo is None else call.excinfo.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    asserted = error is None or isinstance(error, AssertionError | pytest.fail.Exception)
    return ASSERTION if asserted and call.when == "call" else EXCEPTION
