"""Keeps each verdict as it falls, in build/mutation, so that a run which is cut short loses nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from scripts.mutation.areas import ROOT
from scripts.mutation.baseline import Measured
from scripts.mutation.model import NOTICED, Change, Verdict

FOLDER: Final = ROOT / "build" / "mutation"
PATH: Final = FOLDER / "verdicts.jsonl"
CONTROL: Final = FOLDER / "control.jsonl"


class Journal:
    """The verdicts on changes, one a line."""

    def __init__(self, path: Path = PATH) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def add(self, change: Change, verdict: Verdict) -> None:
        """Write the verdict down; the last one on a change counts."""
        row = {"change": change.identity, **verdict._asdict(), "file": _file_of(verdict.by)}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read(path: Path = PATH) -> dict[str, Verdict]:
    """The last verdict on each change."""
    return {
        change: Verdict(each["outcome"], each["by"], each["how"], tuple(each["tests"]))
        for change, each in _rows(path).items()
    }


def killed() -> set[str]:
    """The changes that a test noticed whose file is what it was."""
    return {
        change
        for change, each in _rows(PATH).items()
        if each["outcome"] in NOTICED and each["file"] == _file_of(each["by"])
    }


def _rows(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {each["change"]: each for each in rows}


def _file_of(test: str) -> str:
    """A digest of the test's file; empty where no single test noticed."""
    path = ROOT / test.partition("::")[0]
    return _digest(str(path)) if "::" in test and path.exists() else ""


@cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def kept_baseline(name: str, paths: Iterable[Path]) -> Measured | None:
    """What a file of tests showed, unless it or a module of which it ran a line was edited since."""
    path = _measured_path(name)
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if any(_digest(str(ROOT / each)) != digest for each, digest in found["modules"].items()):
        return None
    tests = {str(each): found["tests"].get(str(each.relative_to(ROOT)), {}) for each in paths}
    return Measured(found["names"], found["seconds"], tests)


def keep_baseline(name: str, measured: Measured) -> None:
    """Spare the next run this measurement."""
    path = _measured_path(name)
    for each in path.parent.glob(f"{path.name.partition('.')[0]}.*"):
        each.unlink(missing_ok=True)
    tests = {str(Path(each).relative_to(ROOT)): lines for each, lines in measured.tests.items() if lines}
    modules = {each: _digest(str(ROOT / each)) for each in tests}
    found = {"names": measured.names, "seconds": measured.seconds, "tests": tests, "modules": modules}
    path.write_text(json.dumps(found), encoding="utf-8")


def _measured_path(name: str) -> Path:
    folder = FOLDER / "baseline"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{Path(name).stem}.{_digest(str(ROOT / name))}.json"


def kept_changes(path: Path) -> list[list[Any]] | None:
    """The changes of a module's present text, without that text; None if they were not made yet."""
    kept = _changes_path(path)
    return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None


def keep_changes(path: Path, made: list[list[Any]]) -> None:
    """Spare the next run the making of these changes."""
    kept = _changes_path(path)
    for each in kept.parent.glob(f"{kept.name.partition('.')[0]}.*"):
        each.unlink(missing_ok=True)
    kept.write_text(json.dumps(made), encoding="utf-8")


def _changes_path(path: Path) -> Path:
    folder = FOLDER / "changes"
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(path.relative_to(ROOT).with_suffix("").parts)
    return folder / f"{name}.{_digest(str(path))}.{version('mutmut')}.json"
