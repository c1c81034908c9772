"""The examples of docs for the least rights of the server: what the tools of systemd say of the unit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "server.md"
EXPOSED = 20
"""Of 100 by `systemd-analyze security`, which calls a plain unit 96; above this the test fails."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit of the page, with a program that is there."""
    found = re.search(r"```ini\n(\[Unit\].*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    file = tmp_path / "taskpilot-obs.service"
    file.write_text(found[1].replace("/opt/taskpilot/bin/taskpilot-obs", sys.executable), encoding="utf-8")
    return file


def analyzed(*arguments: str | Path) -> str:
    """What `systemd-analyze` prints; it has to succeed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "systemd-analyze is not installed (Debian: apt-get install systemd)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_the_unit(unit: Path) -> None:
    """`systemd-analyze verify` knows every option of the unit, and has no remark."""
    assert analyzed("verify", "--man=no", unit) == ""


def test_the_unit_has_few_rights(unit: Path) -> None:
    """`systemd-analyze security` finds little that the unit could do besides serving."""
    assert "Overall exposure level" in analyzed("security", "--offline=true", f"--threshold={EXPOSED}", unit)


def test_the_container_is_not_root() -> None:
    """The image of the page runs as a user without a name, and the command without capabilities or a place to write."""
    text = PAGE.read_text(encoding="utf-8")
    assert re.search(r"```dockerfile\n(?:(?!```).)*^USER 65534$", text, re.DOTALL | re.MULTILINE)
    run = re.search(r"docker run ((?:(?!```).)*)", text, re.DOTALL)
    assert run is not None
    for option in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "-p 127.0.0.1:"):
        assert option in run[1]
