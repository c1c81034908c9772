"""Runs an area's tests once in one pytest session, then the tests of each change in a fork of that session.

The fork has imported everything, so that a change costs no more than its tests: from the fastest on, until one fails.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, Final

import pytest
from coverage import Coverage

from scripts.mutation.areas import ROOT, every_path, test_files
from scripts.mutation.baseline import Baseline, Measured, Measuring, covering
from scripts.mutation.journal import keep_baseline, kept_baseline
from scripts.mutation.live import LiveFunctions, NotAppliedError
from scripts.mutation.model import AT_IMPORT, HUNG, KILLED, NOT_RUN, SURVIVED, Change, Verdict

PATIENCE_SECONDS: Final = 10
"""A change has hung when its tests work, or wait for something, this much longer than four times their usual time."""
LONGEST_SECONDS: Final = 4.0
"""Processor time of the tests of one change, as usual: where there are more, the slowest are left out."""
MEMORY_BYTES: Final = 8 * 2**30
OPTIONS: Final = (
    *("-q", "-s", "-m", "not full", "--assert=plain", "--tb=native", "--no-header", "--no-summary"),
    *("-p", "no:cacheprovider", "-p", "no:xdist"),
)

Found = Callable[[Change, Verdict], None]


class Session:
    """The pytest plugin that forks."""

    def __init__(self, paths: Sequence[Path], changes: Iterable[Change], found: Found, importing: Coverage) -> None:
        self._paths = paths
        self._changes = changes
        self._found = found
        self._importing = importing

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        self._importing.stop()
        items = {each.nodeid: each for each in session.items}
        baseline = self._baseline(session)
        live = LiveFunctions(self._paths)
        gc.freeze()  # what the forks share stays shared
        for change in self._changes:
            self._found(change, _verdict(session, items, baseline, live, change))
        return True

    def _baseline(self, session: pytest.Session) -> Baseline:
        data = self._importing.get_data()
        imports = {str(path): frozenset(data.lines(str(path)) or ()) for path in self._paths}
        files = []
        for name, items in groupby(session.items, key=lambda each: each.nodeid.partition("::")[0]):
            measured = kept_baseline(name, self._paths)
            if measured is None:
                measured = self._measured(session, list(items))
                keep_baseline(name, self._paths, measured)
            files.append(measured)
        left_out = [test for each in files for test in each.names if test not in each.seconds]
        print(f"  {sum(len(each.seconds) for each in files)} tests; left out, because they fail or skip:", *left_out)
        return Baseline(files, imports)

    def _measured(self, session: pytest.Session, items: Sequence[pytest.Item]) -> Measured:
        def measure() -> object:
            measuring = Measuring(self._paths)
            session.config.pluginmanager.register(measuring)
            measuring.coverage.start()
            _run(session, items, to_the_end=True)
            measuring.coverage.stop()
            return measuring.found()._asdict()

        return Measured(**in_fork(measure, patience=900))


def _verdict(
    session: pytest.Session, items: Mapping[str, pytest.Item], baseline: Baseline, live: LiveFunctions, change: Change
) -> Verdict:
    tests = baseline.tests_of(change, LONGEST_SECONDS)

    def attempt() -> object:
        live.apply(change)
        return _run(session, [items[each] for each in tests])

    at_import = baseline.runs_at_import(change)
    if not tests and not at_import:
        return Verdict(NOT_RUN)
    try:
        by = in_fork(attempt, PATIENCE_SECONDS + 4 * baseline.seconds_of(tests)) if tests else None
    except TimeoutError:
        return Verdict(HUNG)
    except NotAppliedError:
        at_import, by = True, None
    if by is not None:
        return Verdict(KILLED, by)
    every = tuple(baseline.tests_of_module(change, LONGEST_SECONDS))
    return Verdict(AT_IMPORT, tests=every) if at_import else Verdict(SURVIVED)


def _run(session: pytest.Session, items: Sequence[pytest.Item], *, to_the_end: bool = False) -> str | None:
    """The first test that fails; those behind it are run only where that is asked for."""
    failures = _Failures()
    session.config.pluginmanager.register(failures)
    for item, following in zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if failures.first is not None and not to_the_end:
            session._setupstate.teardown_exact(None)  # noqa: SLF001 - ends what the tests share
            break
    return failures.first


class _Failures:
    def __init__(self) -> None:
        self.first: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.first is None:
            self.first = report.nodeid


def in_fork(work: Callable[[], object], patience: float) -> Any:
    """What `work` returns in a fork of this process, by way of JSON.

    Raises:
        TimeoutError: The fork worked longer, or waited longer, and was ended with all that it started.
        NotAppliedError: `work` raised one.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    child = os.fork()
    if child == 0:
        _work(work, folder, patience)
    try:
        _wait(child, patience)
        answer = folder / "answer.json"
        if not answer.exists():
            return "the process ended"
        found = json.loads(answer.read_text(encoding="utf-8"))
        if "refused" in found:
            raise NotAppliedError(found["refused"])
        return found["answer"]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _work(work: Callable[[], object], folder: Path, patience: float) -> None:
    """In the fork: leave the answer and end."""
    os.setsid()
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(patience), math.ceil(patience) + 5))
    silence = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):
        os.dup2(silence, each)
    try:
        answer = {"answer": work()}
    except NotAppliedError as failure:
        answer = {"refused": str(failure)}
    except BaseException as failure:  # noqa: BLE001 - the change may do anything, and then a test has noticed it
        answer = {"answer": f"ended by {type(failure).__name__}"}
    (folder / "new.json").write_text(json.dumps(answer), encoding="utf-8")
    (folder / "new.json").rename(folder / "answer.json")
    os._exit(0)


def _wait(child: int, patience: float) -> None:
    """Wait for the fork; time in which other programs had the processor does not count."""
    pause, idle, used = 0.002, 0.0, -1
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        before, used = used, _processor_use(child)
        idle = idle + pause if used == before else 0.0
        if idle > patience:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError
        time.sleep(pause)
        pause = min(pause * 1.2, 0.05)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise TimeoutError


def _processor_use(process: int) -> int:
    """Grows while the process works or could work; stays while it waits. Where there is no /proc, it always stays."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0
    return time.monotonic_ns() if fields[0] == "R" else int(fields[11]) + int(fields[12])


def examine(names: Sequence[str], changes: Iterable[Change], found: Found) -> None:
    """Try all these changes of these areas; `found` is called in a fork of this process."""
    child = os.fork()
    if child == 0:
        try:
            _examine(names, changes, found)
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent would
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _examine(names: Sequence[str], changes: Iterable[Change], found: Found) -> None:
    os.chdir(ROOT)
    importing = covering(every_path())
    importing.start()
    pytest.main([*OPTIONS, *test_files(names)], plugins=[_Unshrunk(), Session(every_path(), changes, found, importing)])


def examine_fresh(change: Change, tests: Sequence[str]) -> Verdict:
    """Try one change in an interpreter that has not imported the library yet."""
    failures = _Failures()

    class Chosen:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            by_name = {each.nodeid: each for each in items}
            items[:] = [by_name[each] for each in tests if each in by_name]

    def attempt() -> object:
        os.chdir(ROOT)
        _import_changed(change)
        files = sorted({each.partition("::")[0] for each in tests})
        ended = pytest.main([*OPTIONS, "-x", *files], plugins=[_Unshrunk(), failures, Chosen()])
        return failures.first or (None if ended is pytest.ExitCode.OK else f"pytest ended with {ended}")

    try:
        by = in_fork(attempt, patience=60)
    except TimeoutError:
        return Verdict(HUNG)
    return Verdict(SURVIVED) if by is None else Verdict(KILLED, by)


class _Unshrunk:
    """Lets hypothesis try the same examples for each change, and not look for smaller ones of a failure."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        import hypothesis  # not before pytest, which rewrites its asserts

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutation", deadline=None, derandomize=True, database=None, phases=phases)
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
