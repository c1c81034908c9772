"""The wheel that users get: complete, importable where nothing of the checkout is, and its command runs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
        str(folder),
    ]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_every_integration_is_packaged() -> None:
    """Each integration's package is listed, for hatchling ignores globs in silence."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    found = {str(path.relative_to(ROOT)) for path in ROOT.glob("integrations/*/taskpilot_obs_*") if path.is_dir()}
    assert found | {"taskpilot_obs"} == set(listed)


def test_the_wheel_is_complete(wheel: Path) -> None:
    """Types, assets, migrations and integrations are in it; tests and examples are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "taskpilot_obs/py.typed",
        "taskpilot_obs/_observability/prometheus/prometheus.yml",
        "taskpilot_obs/store/migrations/env.py",
        "taskpilot_obs_langchain/__init__.py",
        "taskpilot_obs_langchain/py.typed",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "examples/", "integrations/"))]


def test_the_installed_wheel_works_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, away from the checkout, it is imported from there and its command runs."""
    venv.create(tmp_path / "env", with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = str(tmp_path / "env" / "bin" / "python")

    def run(code: str) -> str:
        done = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("import taskpilot_obs; print(taskpilot_obs.__file__)").startswith(str(site))
    shown = run(
        "import sys; sys.argv = ['x', 'price', 'gpt-4o', '--input', '150', '--output', '50']\n"
        "from taskpilot_obs.cli import main; main()"
    )
    assert "0.000875 USD" in shown
    listed = run("import sys; sys.argv = ['x', 'export-assets', 'assets']\nfrom taskpilot_obs.cli import main; main()")
    assert (tmp_path / "assets" / "prometheus" / "prometheus.yml").exists(), listed
