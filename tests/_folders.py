"""Folders of tests that other users have to get into."""

from __future__ import annotations

from pathlib import Path

PYTESTS_OWN = ("pytest-", "popen-")


def open_to_all(folder: Path) -> None:
    """Let any user enter a test's folder, and those above it that pytest made for its own user alone."""
    for each in (folder, *(parent for parent in folder.parents if parent.name.startswith(PYTESTS_OWN))):
        each.chmod(0o755)
