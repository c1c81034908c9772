"""Every test of an integration gets fresh parts of the default recorder, as the library's own tests do."""  # noqa: INP001  test folders are no packages

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import context as otel_context  # noqa: TID251  what a test left attached is taken away

from taskpilot_obs.context import current_running, current_scope
from taskpilot_obs.guarded import forget_causes
from taskpilot_obs.testing import capture_invocations, fresh_recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskpilot_obs.recorder import Recorder
    from taskpilot_obs.records import Invocation
    from taskpilot_obs.testing import Captured


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
