"""A benchmark whose checker, folder or function fails: what was paid for is kept, and nothing more is spent."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from taskpilot_obs.compare.bench import Reporter, benchmark
from taskpilot_obs.compare.bench.calls import BenchCall
from taskpilot_obs.compare.bench.keeping import CALLS, Folder
from taskpilot_obs.exceptions import ConfigurationError

MANY: Final = 5_000
"""Calls of a whole run: it would take 50 s."""


class Asked:
    """An arm that counts its calls, each of which takes 10 ms."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompt: str) -> str:
        self.calls += 1
        time.sleep(0.01)
        return "It is 4"


def a_task(tmp_path: Path, **line: str) -> str:
    """A task of one item."""
    file = tmp_path / "task.jsonl"
    file.write_text(json.dumps({"prompt": "2 + 2?", **line}) + "\n")
    return str(file)


def test_a_checker_that_raises_keeps_the_calls_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each completed call is in the folder, with unknown correctness, and the error names checker and item."""
    (tmp_path / "my_checkers.py").write_text("def judge(answer, expected):\n    raise KeyError(expected)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    arm, task = Asked(), a_task(tmp_path, checker="my_checkers:judge", id="sum")
    with pytest.raises(ConfigurationError, match="'my_checkers:judge' failed on an answer to 'sum': KeyError"):
        benchmark({"mine": arm}, tasks=[task], iterations=MANY, warm_up=0, concurrency=1, out=tmp_path / "run")
    kept = Folder(tmp_path / "run").read_calls()
    assert 0 < arm.calls - 1 <= len(kept) < MANY  # one was cancelled
    assert all(call.success and call.correct is None for call in kept)


@pytest.mark.parametrize(
    ("checker", "expected"), [("number", "four"), ("number", "NaN"), ("steps", "click"), ("steps", "[[]]")]
)
def test_an_expected_answer_that_cannot_be_compared_is_refused(tmp_path: Path, checker: str, expected: str) -> None:
    """Before any call is paid for."""
    arm = Asked()
    with pytest.raises(ConfigurationError, match="line 1: expected: given"):
        benchmark({"mine": arm}, tasks=[a_task(tmp_path, checker=checker, expected=expected)])
    assert arm.calls == 0


def test_a_number_may_be_expected_with_thousands_separators(tmp_path: Path) -> None:
    """As answers may have them."""
    report = benchmark(
        {"mine": lambda _: "about 1,024"}, tasks=[a_task(tmp_path, checker="number", expected="1,024")], warm_up=0
    )
    assert report.arms["mine"].correct is not None
    assert report.arms["mine"].correct.value == 1


def test_a_reporter_that_fails_ends_the_run_and_the_others_get_every_call(tmp_path: Path) -> None:
    """A full disk costs no more calls than those of a second."""

    class Full(Reporter):
        def saved(self, calls: Sequence[BenchCall]) -> None:
            raise OSError(28, "No space left on device")

    arm, task = Asked(), a_task(tmp_path)
    options: dict[str, Any] = {"iterations": MANY, "warm_up": 0, "concurrency": 1, "out": tmp_path / "run"}
    with pytest.raises(OSError, match="No space left"):
        benchmark({"mine": arm}, tasks=[task], reporters=[Full()], **options)
    assert 0 < arm.calls - 1 <= len(Folder(tmp_path / "run").read_calls()) < MANY


def test_a_line_that_a_full_disk_cut_off_is_removed_before_the_next(tmp_path: Path) -> None:
    """Otherwise the next call would continue the line, and the run could not be resumed."""
    benchmark({"mine": Asked()}, tasks=["simple"], items=1, iterations=2, warm_up=0, out=tmp_path)
    folder, kept = Folder(tmp_path), Folder(tmp_path).read_calls()

    def cut_off(file: Path, flag: int, text: str) -> None:
        with file.open("a") as opened:
            opened.write(text[:40])
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        folder.saved(kept[:1])
        patch.setattr(folder, "_put", cut_off)
        with pytest.raises(OSError, match="No space"):
            folder.saved(kept[:1])
    assert (tmp_path / CALLS).read_bytes()[-1:] != b"\n"
    folder.saved(kept[1:])
    assert folder.read_calls() == [*kept, kept[0], kept[1]]


_HANGS = """
import threading
from taskpilot_obs.compare.bench import benchmark

report = benchmark({"mine": lambda _: threading.Event().wait()}, tasks=["simple"], items=1, iterations=3, warm_up=0,
                   concurrency=1, timeout_s=0.2, retries=0)
print(report.arms["mine"].error_summary)
"""


def test_a_function_that_never_returns_holds_up_neither_the_run_nor_the_exit() -> None:
    """Each of its calls times out by itself, and the process ends with the report."""
    done = subprocess.run([sys.executable, "-c", _HANGS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "{'timeout': 3}\n", done.stderr
