"""`scripts/new_integration.py`: the folder that it makes passes its own tests."""

from __future__ import annotations

import os
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
    shutil.copy(ROOT / "integrations" / "conftest.py", tmp_path / "integrations")
    return tmp_path


def test_a_new_integration_passes_its_tests_and_its_example_runs(root: Path) -> None:
    """Tests and example of a new folder end well, and `pyproject.toml` names its package, extra and types."""
    made = make("somework", root)
    assert all(path.exists() for path in made)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert (
        "integrations/somework/taskpilot_obs_somework"
        in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    )
    assert project["project"]["optional-dependencies"]["somework"] == ["somework"]
    assert "integrations/somework" in project["tool"]["mypy"]["mypy_path"]
    folder = root / "integrations" / "somework"
    paths = os.pathsep.join([str(folder), str(ROOT / "tests"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths}
    for command in (
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(folder / "tests")],
        [str(folder / "example.py")],
        ["-m", "ruff", "check", "-q", "--isolated", "--line-length=120", "--select=F,E,W,SIM,UP,B", str(folder)],
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=root, env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert len((folder / "README.md").read_text().splitlines()) <= 40


def test_what_is_there_is_not_overwritten(root: Path) -> None:
    """A second integration of the name, and a name that cannot be imported, are refused."""
    make("somework", root)
    with pytest.raises(FileExistsError):
        make("somework", root)
    with pytest.raises(ValueError, match="import name"):
        make("Some-Work", root)
