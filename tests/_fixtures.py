"""What every test gets, the library's own and those of the integrations: fresh parts, and nothing left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis
import pytest
from opentelemetry import context as otel_context

from taskpilot_obs._recording.invocation import current_running
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.scope import current_scope
from taskpilot_obs._support.guarded import forget_causes
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

# How long an example takes says nothing where two cores run two tests and a drainer.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@contextmanager
def nothing_left_current() -> Iterator[None]:
    """Fail a test that leaves a run, a request or a span current: those behind it would run beneath it."""
    yield
    left = {"request": current_scope.get(), "run": current_running.get(), "span": otel_context.get_current() or None}
    current_scope.set(None)
    current_running.set(None)
    otel_context.attach(otel_context.Context())
    assert not any(left.values()), f"the test left this current: {left}"


def _logging() -> dict[str, object]:
    """What decides whether the library's lines are seen."""
    loggers = (logging.getLogger(), logging.getLogger("taskpilot_obs"))
    found = {each.name: (each.level, each.disabled, each.propagate) for each in loggers}
    return {"all": logging.root.manager.disable, **found}


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """Fail a test that changes what is logged: tests behind it would miss lines, or have lines of others."""
    before = _logging()
    yield
    after = _logging()
    logging.disable(logging.NOTSET)
    for name in ("", "taskpilot_obs"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING if not name else logging.NOTSET)
        logger.disabled, logger.propagate = False, True
    assert after == before, "the test left logging changed"


@pytest.fixture(autouse=True)
def recorder() -> Iterator[Recorder]:
    """The default recorder, with nothing counted yet."""
    forget_causes()
    with logging_left_alone(), nothing_left_current(), fresh_recorder() as fresh:
        yield fresh


@pytest.fixture
def seen(recorder: Recorder) -> Iterator[Captured[Invocation]]:
    """The invocations that end during the test."""
    with capture_invocations(recorder) as captured:
        yield captured
