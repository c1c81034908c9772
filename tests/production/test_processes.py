"""Forks and child processes of every kind: what each records is written once, and nothing of its parent's twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

PRELUDE = """
import multiprocessing, os, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from taskpilot_obs import configure, flush, observe_agent, get_recorder

@observe_agent
def agent(): pass

def work(calls, configured=True):
    if not configured:
        configure(audit_log=os.environ["AUDIT"])
    for _ in range(calls):
        agent()
    return os.getpid()
"""


def start(tmp_path: Path, code: str) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + textwrap.dedent(code))
    environment = os.environ | {
        "AUDIT": str(tmp_path / "audit" / "audit.jsonl"),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "values"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONWARNINGS": "ignore:This process:DeprecationWarning",  # is multi-threaded and forks: from 3.12 on
    }
    (tmp_path / "values").mkdir()
    command = [sys.executable, str(script)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(tmp_path: Path, code: str) -> str:
    with start(tmp_path, code) as process:
        out, err = process.communicate(timeout=120)
    said = [line for line in err.splitlines() if "overage" not in line and not line.startswith("  self.")]
    assert (process.returncode, said) == (0, [])  # coverage, when it measures, has its say too
    return out


def audited(tmp_path: Path) -> Counter[str]:
    """How often each run's end stands in the audit log, over all processes' files."""
    lines = [line for path in (tmp_path / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    ends = [record for record in map(json.loads, lines) if record.get("status")]
    return Counter(record["invocation_id"] for record in ends)


def counted(tmp_path: Path) -> float:
    """Runs in the values of all processes, living and dead."""
    code = """
    from taskpilot_obs.exporters.prometheus.reading import samples
    print(sum(s.value for s in samples() if s.name == "agent_runs_total"))
    """
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "values")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def assert_exactly(tmp_path: Path, runs: int) -> None:
    """Each run once in the audit log, and as many in the metrics."""
    written = audited(tmp_path)
    assert (len(written), set(written.values()), counted(tmp_path)) == (runs, {1}, runs)


@pytest.mark.promise("fork")
def test_fork_with_a_full_queue(tmp_path: Path) -> None:
    """Children that are forked under load, from several threads, write their own records, and nothing twice."""
    run(
        tmp_path,
        """
        configure(audit_log=os.environ["AUDIT"])
        stop = threading.Event()
        made = []
        def load():
            calls = 0
            while not stop.is_set():
                work(50); calls += 50
                time.sleep(0.001)
            made.append(calls)
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads: thread.start()
        children = []
        for _ in range(12):
            time.sleep(0.02)
            pid = os.fork()
            if pid == 0:
                work(100)
                sys.exit(0)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        flush()
        Path(os.environ["AUDIT"]).with_name("made").write_text(str(sum(made) + 12 * 100))
        """,
    )
    assert_exactly(tmp_path, int((tmp_path / "audit" / "made").read_text()))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    """Children of `multiprocessing`, which run no exit handlers, have written everything when they are joined."""
    run(
        tmp_path,
        f"""
        if __name__ == "__main__":
            configure(audit_log=os.environ["AUDIT"])
            work(10)
            context = multiprocessing.get_context({method!r})
            args = (200, {method == "fork"})
            children = [context.Process(target=work, args=args) for _ in range(3)]
            for child in children: child.start()
            for child in children: child.join()
            assert [child.exitcode for child in children] == [0, 0, 0]
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                list(pool.map(work, [50] * 4, [{method == "fork"}] * 4))
        """,
    )
    assert_exactly(tmp_path, 10 + 3 * 200 + 4 * 50)


def test_a_child_that_raises_and_one_that_exits(tmp_path: Path) -> None:
    """A child that ends with an exception, or by `sys.exit`, has written what it recorded."""
    out = run(
        tmp_path,
        """
        def fails(): work(70); raise SystemExit(3)
        def ends(): work(30); sys.exit()
        configure(audit_log=os.environ["AUDIT"])
        work(5)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=target) for target in (fails, ends)]
        for child in children: child.start()
        for child in children: child.join()
        print([child.exitcode for child in children])
        """,
    )
    assert out == "[3, 0]\n"
    assert_exactly(tmp_path, 5 + 70 + 30)


def test_os_exit_after_flush(tmp_path: Path) -> None:
    """What was flushed is written, even when the process ends without any clean-up."""
    run(
        tmp_path,
        """
        configure(audit_log=os.environ["AUDIT"])
        if os.fork() == 0:
            work(500)
            assert flush()
            os._exit(0)
        os.wait()
        """,
    )
    assert_exactly(tmp_path, 500)


@pytest.mark.promise("killed")
def test_a_child_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL costs the run in progress and what is younger than 250 ms; all that is older is written."""
    with start(
        tmp_path,
        """
        configure(audit_log=os.environ["AUDIT"])
        work(300)
        time.sleep(1)
        print("old enough", flush=True)
        @observe_agent("in flight")
        def forever():
            time.sleep(60)
        forever()
        """,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "old enough\n"
        process.send_signal(signal.SIGKILL)
    assert_exactly(tmp_path, 300)


@pytest.mark.promise("fork")
def test_identifiers_of_forks_differ(tmp_path: Path) -> None:
    """Children that were forked from one parent at the same moment give their runs different identifiers."""
    out = run(
        tmp_path,
        """
        recorder = configure()
        work(3)
        for _ in range(8):
            if os.fork() == 0:
                run = recorder.start("invoke_agent", "a")
                os.write(1, f"{run.invocation_id}\\n".encode())  # whole, also where `print` writes the newline apart
                os._exit(0)
        for _ in range(8): os.wait()
        """,
    )
    assert len(set(out.split())) == 8


@pytest.mark.promise("workers-add-up")
def test_a_compaction_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """A scrape that is killed in the middle of adding up dead processes' files leaves every counter as it was."""
    run(
        tmp_path,
        """
        configure()
        for _ in range(6):
            if os.fork() == 0:
                work(100)
                sys.exit(0)
        for _ in range(6): os.wait()
        """,
    )
    killed = 0
    for operation in ("rename", "replace", "unlink", "touch"):
        for after in (1, 2, 3, 5, 9):
            killed += killed_while(tmp_path, operation, after)
    assert killed > 5
    assert counted(tmp_path) == 600


def killed_while(tmp_path: Path, operation: str, after: int) -> bool:
    """Scrape in a process that dies at its n-th such operation on a file."""
    code = f"""
    import os, pathlib
    done, real = [], pathlib.Path.{operation}
    def once_too_often(*args, **options):
        done.append(1)
        if len(done) == {after}:
            os.kill(os.getpid(), 9)
        return real(*args, **options)
    from taskpilot_obs import configure, observe_agent
    from taskpilot_obs.exporters.prometheus.reading import samples
    pathlib.Path.{operation} = once_too_often
    if os.fork() == 0:  # something to add up, also for those that come later
        configure()
        os._exit(0)
    os.wait()
    list(samples())
    """
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "values")}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=False)
    assert done.returncode in {0, -signal.SIGKILL}
    return done.returncode != 0


@pytest.mark.parametrize("drained", [False, True])
def test_a_run_that_forks_is_its_parents(tmp_path: Path, drained: bool) -> None:
    """A run that was in progress at a fork is recorded by the process that began it, though both of them leave it."""
    out = run(
        tmp_path,
        f"""
        from taskpilot_obs.exporters.prometheus.reading import samples
        configure(audit_log=os.environ["AUDIT"])

        @observe_agent
        def forks():
            if {drained}:
                flush()
            child = os.fork()
            agent()
            return child

        child = forks()
        if not child:
            agent()
            flush()
            deadline = time.monotonic() + 10  # the parent's own end may be a moment behind
            while (active := sum(s.value for s in samples() if s.name == "agent_active_runs")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            print(active, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        flush()
        """,
    )
    assert_exactly(tmp_path, 4)
    assert out == "0.0\n"
