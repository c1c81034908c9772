"""Every test gets fresh parts of the default recorder, and leaves none of its settings behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from _fixtures import recorder, seen
from _signals import pytest_configure

from taskpilot_obs.testing import FixedClock

__all__ = ["clock", "pytest_configure", "recorder", "seen"]

# Last, so that the installed wheel comes first: what a spawned process unpickles is named `tests.…`.
sys.path.append(str(Path(__file__).parent.parent))


@pytest.fixture
def clock() -> FixedClock:
    """A clock that a test moves."""
    return FixedClock()
