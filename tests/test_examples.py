"""Every example runs as it stands: offline, in seconds, without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = [*sorted(ROOT.glob("examples/*.py")), *sorted(ROOT.glob("integrations/*/example.py"))]
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY")
MODULES = {"google_adk": "google.adk", "google_genai": "google.genai", "openai_agents": "agents"}
"""What a framework is imported as, where its integration has another name."""
NOISY = ("crewai", "google_adk")
"""Frameworks that warn of themselves when they are imported or used."""
WITHIN_S = 120
"""Far more than an example takes; one that waits for something ends here."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_example(path: Path, tmp_path: Path) -> None:
    """It exits with 0, prints something, complains about nothing and leaves no file where it was called."""
    if path.name == "example.py" and not _is_installed(MODULES.get(path.parent.name, path.parent.name)):
        pytest.skip(f"{path.parent.name}, the framework of this integration, is not installed")
    environ = {name: value for name, value in os.environ.items() if name not in KEYS}
    # Nothing answers there: an example that uses the network fails instead of passing by luck.
    offline = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    noisy = path.parent.name in NOISY
    done = subprocess.run(
        [sys.executable, "-W", "ignore" if noisy else "error", str(path)],
        cwd=tmp_path,
        env={**environ, **offline},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "taskpilot_obs" not in done.stderr if noisy else done.stderr == ""
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_in_the_list() -> None:
    """examples/README.md names each file, and no other."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    named = {part.split(")")[0] for part in text.split("](")[1:] if part.split(")")[0].endswith(".py")}
    assert named == {path.name for path in ROOT.glob("examples/*.py")}


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
