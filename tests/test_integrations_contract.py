"""The contract of integrations/README.md, held for every folder."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path for path in (ROOT / "integrations").iterdir() if (path / "README.md").exists())
LONGEST_README = 40
MOST_LINES = 300
LARGER = {
    "agent_framework": "middleware of agents, chats and tools, workflows, streams, and the tier that it drops",
    "openai_agents": "its SDK reports no failure of a call without spans, so that the adapter finds the end otherwise",
    "langchain": "handler, middleware and usage of two frameworks whose callbacks report every kind of run",
    "opentelemetry": "the bridge reads three dialects of spans, and `instrument()` knows every SDK",
}
"""Integrations that are more than the adapter of one framework, and why."""


def lines_of(folder: Path) -> int:
    """The lines of an integration's package that are not blank."""
    files = folder.glob("taskpilot_obs_*/**/*.py")
    return sum(bool(line.strip()) for file in files for line in file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_an_integration_is_small_and_whole(folder: Path) -> None:
    """At most 300 lines of adapter and 40 of README; typed, with an example and tests."""
    package = folder / f"taskpilot_obs_{folder.name}"
    assert (package / "py.typed").exists()
    assert (folder / "example.py").exists()
    assert list(folder.glob("tests/test_*.py"))
    assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README
    if folder.name not in LARGER:
        assert lines_of(folder) <= MOST_LINES, "move what other adapters need too to taskpilot_obs.integration"


def test_exceptions_are_needed() -> None:
    """An integration that fits is not listed among the larger ones."""
    assert all(lines_of(ROOT / "integrations" / name) > MOST_LINES for name in LARGER)


def test_the_readme_lists_every_integration() -> None:
    """The table of integrations/README.md has a row for each folder."""
    text = (ROOT / "integrations" / "README.md").read_text(encoding="utf-8")
    assert [folder.name for folder in FOLDERS if f"[{folder.name}]({folder.name}/README.md)" not in text] == []
