"""Every test gets fresh parts of the default recorder, and leaves none of its settings behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry import context as otel_context

from taskpilot_obs.context import current_running, current_scope
from taskpilot_obs.guarded import forget_causes
from taskpilot_obs.testing import FixedClock, capture_invocations, fresh_recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskpilot_obs.recorder import Recorder
    from taskpilot_obs.records import Invocation
    from taskpilot_obs.testing import Captured

# Last, so that the installed wheel comes first: what a spawned process unpickles is named `tests.…`.
sys.path.append(str(Path(__file__).parent.parent))


@pytest.fixture(autouse=True)
def recorder() -> Iterator[Recorder]:
    """The default recorder, with nothing counted yet."""
    forget_causes()
    # What a test before left current, as those about foreign contexts do, is not this one's parent.
    current_scope.set(None)
    current_running.set(None)
    otel_context.attach(otel_context.Context())
    with fresh_recorder() as fresh:
        yield fresh


@pytest.fixture
def seen(recorder: Recorder) -> Iterator[Captured[Invocation]]:
    """The invocations that end during the test."""
    with capture_invocations(recorder) as captured:
        yield captured


@pytest.fixture
def clock() -> FixedClock:
    """A clock that a test moves."""
    return FixedClock()
