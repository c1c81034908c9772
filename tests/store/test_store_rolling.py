"""Released code beside this code: what versions of the history write, read and book in stores of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from _postgres import Server
from _stored import new_database, sqlite_url

from taskpilot_obs.store import Store, upgrade
from taskpilot_obs.store.differences import differences
from taskpilot_obs.store.partitioning import partition
from taskpilot_obs.store.versions import REVISIONS

ROOT = Path(__file__).parents[2]
LIFE = Path(__file__).with_name("released") / "life.py"
_MIGRATION = "taskpilot_obs/store/migrations/versions/0003_budget_assumed.py"
CODE = {"0003": "", "0002": "^"}
"""Code of each version: the commit that added this migration, and the one before it."""
_UPGRADE = "import sys; from taskpilot_obs.store import Store, upgrade; upgrade(Store(sys.argv[1]))"


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True).stdout


@pytest.fixture(scope="module", params=sorted(CODE))
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it was before a version of the tables came."""
    try:
        added = git("log", "--full-history", "--format=%H", "--diff-filter=A", "--", _MIGRATION).decode().split()
        archive = git("archive", f"{added[-1]}{CODE[request.param]}", "taskpilot_obs")
    except (subprocess.CalledProcessError, FileNotFoundError, IndexError):
        pytest.skip(f"the history of this checkout does not reach back to code of version {request.param}")
    folder = tmp_path_factory.mktemp(f"code-{request.param}")
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def run(code: Path, *arguments: str) -> str:
    """Run Python with the package of a folder."""
    environ = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environ, cwd=code, check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout


def live(code: Path, url: str) -> dict[str, Any]:
    """Three calls of 0.25 USD by the code of a folder; what it sees in the store afterwards."""
    found: dict[str, Any] = json.loads(run(code, str(LIFE), url).splitlines()[-1])
    assert Path(found.pop("file")).is_relative_to(code)
    return found


def after(lives: int) -> dict[str, Any]:
    """What every version sees after so many of these lives."""
    calls = 3 * lives
    return {"requests": calls, "cost": calls * 0.25, "acme": calls, "spent": calls * 0.25}


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_versions_share_a_store(engine: str, old: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Old code makes a store, both use it before the upgrade and after it, and each counts and books every call."""
    server: Server | None = request.getfixturevalue("server") if engine == "postgresql" else None
    url = sqlite_url(tmp_path) if server is None else new_database(server)
    run(old, "-c", _UPGRADE, url) if server else None
    assert live(old, url) == after(1)
    assert live(ROOT, url) == after(2)  # on PostgreSQL before the upgrade
    assert live(old, url) == after(3)
    store = Store(url, create=True)
    upgrade(store)
    assert (store.version(), differences(store)) == (REVISIONS[-1], [])
    assert live(old, url) == after(4)
    assert live(ROOT, url) == after(5)
    if server is not None:
        partition(store=store)
        assert live(old, url) == after(6)
        assert live(ROOT, url) == after(7)
    store.close()
