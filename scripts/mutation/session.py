"""Runs an area's tests once in one pytest session, then the tests of each change in a fork of that session.

The fork has imported everything, so that a change costs no more than its tests: from the fastest on, until one fails.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pytest
from coverage import Coverage

from scripts.mutation.areas import ROOT, every_path, test_files
from scripts.mutation.baseline import Baseline, Measured, Measuring, covering
from scripts.mutation.forks import in_fork
from scripts.mutation.journal import keep_baseline, kept_baseline
from scripts.mutation.live import LiveFunctions
from scripts.mutation.model import ENDED, NOT_RUN, NOTICED, Change, Failure, Verdict
from scripts.mutation.trials import SAME, Failures, Trials, run, verdict_of

OPTIONS: Final = (
    *("-q", "-s", "-m", "not full", "--assert=plain", "--tb=native", "--no-header", "--no-summary"),
    *("-p", "no:cacheprovider", "-p", "no:xdist"),
)

Found = Callable[[Change, Verdict], None]


class Session:
    """The pytest plugin that forks."""

    def __init__(self, paths: Sequence[Path], changes: Iterable[Change], found: Found, *, confirm: bool) -> None:
        self.importing = covering(paths)
        self._paths = paths
        self._changes = changes
        self._found = found
        self._confirm = confirm

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        self.importing.stop()
        baseline = self._baseline(session)
        trials = Trials(session, baseline, LiveFunctions(self._paths), confirm=self._confirm)
        gc.freeze()  # what the forks share stays shared
        for change in self._changes:
            self._found(change, trials.verdict(change))
        if trials.unreliable:
            print("  left out, because they failed without a change:", *sorted(trials.unreliable))
        return True

    def _baseline(self, session: pytest.Session) -> Baseline:
        files = []
        for name, items in groupby(session.items, key=lambda each: each.nodeid.partition("::")[0]):
            measured = kept_baseline(name, self._paths)
            if measured is None:
                measured = self._measured(session, list(items))
                keep_baseline(name, measured)
            files.append(measured)
        left_out = [test for each in files for test in each.names if test not in each.seconds]
        print(f"  {sum(len(each.seconds) for each in files)} tests; left out, because they fail or skip:", *left_out)
        return Baseline(files, _imported(self.importing, self._paths))

    def _measured(self, session: pytest.Session, items: Sequence[pytest.Item]) -> Measured:
        def measure() -> object:
            measuring = Measuring(self._paths)
            session.config.pluginmanager.register(measuring)
            measuring.coverage.start()
            run(session, items, to_the_end=True)
            measuring.coverage.stop()
            return measuring.found()._asdict()

        return Measured(**in_fork(measure, patience=900))


def _imported(importing: Coverage, paths: Iterable[Path]) -> dict[str, frozenset[int]]:
    data = importing.get_data()
    return {str(path): frozenset(data.lines(str(path)) or ()) for path in paths}


def examine(names: Sequence[str], changes: Iterable[Change], found: Found, *, confirm: bool = True) -> None:
    """Try changes of some areas.

    Args:
        names: The areas, whose tests have to notice.
        changes: The changes.
        found: Called with each change and its verdict, in a fork of this process.
        confirm: Believe a failure only if its tests pass without the change.

    Raises:
        RuntimeError: The fork failed, or pytest could not start.
    """
    child = os.fork()
    if child == 0:
        ended = 1
        try:
            ended = _examine(names, Session(every_path(), changes, found, confirm=confirm))
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent would
            traceback.print_exc()
        finally:
            os._exit(ended)
    if ended := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"the session of the tests ended with {ended}; what it found until then is kept")


def _examine(names: Sequence[str], session: Session) -> int:
    os.chdir(ROOT)
    session.importing.start()
    return int(pytest.main([*OPTIONS, *test_files(names)], plugins=[_Unshrunk(), session]))


def examine_fresh(change: Change, tests: Sequence[str], *, confirm: bool = True) -> Verdict:
    """Try one change in an interpreter that has not imported the library yet.

    Args:
        change: The change.
        tests: Those that run a line of its module.
        confirm: Believe a failure only if the tests pass without the change.
    """
    if not tests:
        return Verdict(NOT_RUN)
    verdict = verdict_of(lambda: _first_failure(change, tests), patience=60)
    if not confirm or verdict.outcome not in NOTICED:
        return verdict
    control = verdict_of(lambda: _first_failure(change.without_change(), tests), patience=60)
    return Verdict(*SAME[:1], control.by, control.how) if control.outcome in NOTICED else verdict


def _first_failure(change: Change, tests: Sequence[str]) -> Failure | None:
    class Chosen:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            by_name = {each.nodeid: each for each in items}
            items[:] = [by_name[each] for each in tests if each in by_name]

    os.chdir(ROOT)
    _import_changed(change)
    failures = Failures()
    files = sorted({each.partition("::")[0] for each in tests})
    ended = pytest.main([*OPTIONS, "-x", *files], plugins=[_Unshrunk(), failures, Chosen()])
    if failures.first is None and ended is not pytest.ExitCode.OK:
        return Failure(f"pytest ended with {ended}", ENDED)  # the import of the changed module failed
    return failures.first


class _Unshrunk:
    """Lets hypothesis try the same examples for each change, in any time, and not look for smaller ones of a failure.

    Its checks of how fast examples are made fail on a busy machine, whatever the change.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        import hypothesis  # not before pytest, which rewrites its asserts

        hypothesis.settings.register_profile(
            "mutation",
            deadline=None,
            derandomize=True,
            database=None,
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        hypothesis.settings.load_profile("mutation")


def _import_changed(change: Change) -> None:
    """Let the import of the changed module read the changed text."""
    from importlib.machinery import SourceFileLoader

    get_code = SourceFileLoader.get_code

    def changed(self: SourceFileLoader, fullname: str) -> Any:
        if self.path == str(change.path):
            return compile(change.text, self.path, "exec", dont_inherit=True)
        return get_code(self, fullname)

    SourceFileLoader.get_code = changed  # type: ignore[method-assign, assignment]
