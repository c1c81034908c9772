"""The wheel that users get: complete, importable where nothing of the checkout is, and its command runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MYPY_IGNORES = re.compile(r"\s*# type: ignore\[[a-z, -]+\]")
TOP_LEVEL = {
    "SECURITY.md",
    "mkdocs.yml",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "PKG-INFO",
    "README.md",
    "benchmarks",
    "docs",
    "examples",
    "integrations",
    "observability",
    "pyproject.toml",
    "scripts",
    "taskpilot_obs",
    "tests",
}
"""What the source distribution may hold."""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as pip does where there is no wheel to be had."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    built = subprocess.run([*command, "-w", str(folder), str(sdist)], check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment of its own, away from the checkout, that has the wheel."""
    home = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    shutil.unpack_archive(wheel, site, "zip")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin" / "python"


def shipped() -> dict[str, Path]:
    """What the wheel must hold, by its name there: whatever lies in the packages' folders, and the assets."""
    packages = {folder.name: folder for folder in ROOT.glob("integrations/*/taskpilot_obs_*")}
    packages |= {"taskpilot_obs": ROOT / "taskpilot_obs", "taskpilot_obs/_observability": ROOT / "observability"}
    return {
        f"{name}/{path.relative_to(folder)}": path
        for name, folder in packages.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_integration_is_packaged() -> None:
    """Each integration's package is listed, for hatchling ignores globs in silence."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    found = {str(path.relative_to(ROOT)) for path in ROOT.glob("integrations/*/taskpilot_obs_*") if path.is_dir()}
    assert found | {"taskpilot_obs"} == set(listed)


def test_the_wheel_is_complete(wheel: Path) -> None:
    """Whatever lies in the packages and among the assets is in it, byte for byte, and nothing else is."""
    expected = shipped()
    for needed in (
        "taskpilot_obs/py.typed",
        "taskpilot_obs_langchain/py.typed",
        "taskpilot_obs/store/migrations/env.py",
        "taskpilot_obs/server/static/app.js",
        "taskpilot_obs/server/static/style.css",
        "taskpilot_obs/server/templates/page.html",
        "taskpilot_obs/_observability/prometheus/prometheus.yml",
        "taskpilot_obs/_observability/prometheus/rules/llm/alerts.yml",
        "taskpilot_obs/_observability/alertmanager/alertmanager.yml",
    ):
        assert needed in expected
    assert any(name.startswith("taskpilot_obs/_observability/grafana/dashboards/") for name in expected)
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert set(held) == set(expected)
    assert [name for name, path in expected.items() if held[name] != path.read_bytes()] == []


def test_two_builds_have_one_hash(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """Built again elsewhere, from files of another age, the wheel has the same bytes."""
    shutil.unpack_archive(sdist, tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for path in source.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "again"), str(source)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (again,) = (tmp_path / "again").iterdir()
    assert again.read_bytes() == wheel.read_bytes()


def test_the_source_distribution_can_be_worked_on(sdist: Path) -> None:
    """Sources, tests, documents and scripts are in it; what lies about in a checkout is not."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("pyproject.toml", "LICENSE", "README.md", "Makefile", "tests/conftest.py", "scripts/test.sh"):
        assert needed in names
    assert {name.partition("/")[0] for name in names} <= TOP_LEVEL


def test_the_installed_wheel_works_elsewhere(elsewhere: Path, tmp_path: Path) -> None:
    """In an environment of its own, away from the checkout, it is imported from there and its command runs."""

    def run(code: str) -> str:
        command = [str(elsewhere), "-I", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("import taskpilot_obs; print(taskpilot_obs.__file__)").startswith(str(elsewhere.parent.parent))
    shown = run(
        "import sys; sys.argv = ['x', 'price', 'gpt-4o', '--input', '150', '--output', '50']\n"
        "from taskpilot_obs.cli import main; main()"
    )
    assert "0.000875 USD" in shown
    listed = run("import sys; sys.argv = ['x', 'export-assets', 'assets']\nfrom taskpilot_obs.cli import main; main()")
    assert (tmp_path / "assets" / "prometheus" / "prometheus.yml").exists(), listed


def test_a_users_type_checker_reads_the_wheel(elsewhere: Path, tmp_path: Path) -> None:
    """Outside of the checkout mypy finds errors where there have to be some, and nowhere else: signatures are kept."""
    text = (ROOT / "tests" / "typing" / "api.py").read_text(encoding="utf-8")
    marked = {number for number, line in enumerate(text.splitlines(), 1) if MYPY_IGNORES.search(line)}
    (tmp_path / "used.py").write_text(MYPY_IGNORES.sub("", text), encoding="utf-8")
    options = ["--strict", "--cache-dir", str(tmp_path / "cache"), "--python-executable", str(elsewhere)]
    command = [sys.executable, "-m", "mypy", *options, "used.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert {int(number) for number in re.findall(r"^used\.py:(\d+): error: ", said, re.MULTILINE)} == marked, said
    assert f"Found {len(marked)} errors in 1 file" in said
