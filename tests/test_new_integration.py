"""`scripts/new_integration.py`: the folder that it makes passes its own tests."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
make = runpy.run_path(str(ROOT / "scripts" / "new_integration.py"))["make"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with what an integration needs of it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "integrations").mkdir()
    for name in ("conftest.py", "README.md"):
        shutil.copy(ROOT / "integrations" / name, tmp_path / "integrations")
    return tmp_path


def test_a_new_integration_passes_its_tests_and_its_example_runs(root: Path) -> None:
    """Tests and example of a new folder end well, the lint passes, and the lists of integrations name it in order."""
    made = make("some_work", root)
    assert all(path.exists() for path in made)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert (
        "integrations/some_work/taskpilot_obs_some_work"
        in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    )
    assert project["project"]["optional-dependencies"]["some-work"] == ["some_work"]
    known = project["tool"]["mypy"]["mypy_path"]
    assert known.index("integrations/pydantic_ai") + 1 == known.index("integrations/some_work")
    assert "[some_work](some_work/README.md)" in (root / "integrations" / "README.md").read_text()
    folder = root / "integrations" / "some_work"
    paths = os.pathsep.join([str(folder), str(ROOT / "tests"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths}
    for command in (
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(folder / "tests")],
        [str(folder / "example.py")],
        ["-m", "ruff", "check", "-q", "--config", 'lint.isort.known-first-party = ["taskpilot_obs"]', str(folder)],
        ["-m", "ruff", "format", "-q", "--check", str(folder)],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=root, env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert len((folder / "README.md").read_text().splitlines()) <= 40


def test_a_new_integration_repeats_no_class_name(root: Path) -> None:
    """The class of a new folder has a name that no class of the library or of an integration has."""
    make("some_work", root)
    named = re.compile(r"^class (\w+)", re.MULTILINE)
    new = {
        name
        for path in root.glob("integrations/some_work/taskpilot_obs_*/*.py")
        for name in named.findall(path.read_text())
    }
    old = [path.read_text() for folder in ("taskpilot_obs", "integrations") for path in (ROOT / folder).rglob("*.py")]
    assert new == {"SomeWorkObserver"}
    assert not new & {name for text in old for name in named.findall(text)}


def test_what_is_there_is_not_overwritten(root: Path) -> None:
    """A second integration of the name, and a name that cannot be imported, are refused."""
    make("somework", root)
    with pytest.raises(FileExistsError):
        make("somework", root)
    with pytest.raises(ValueError, match="import name"):
        make("Some-Work", root)
