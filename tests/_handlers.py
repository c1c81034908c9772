"""What the tests of LangChain's handler ask of its state."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from taskpilot_obs_langchain.runs import runs_of

from taskpilot_obs.integration import Recorder


def handlers_forget(recorder: Recorder) -> Iterator[None]:
    """After a test the state of the handlers is empty; a fixture, for the modules that ask for it."""
    yield
    gc.collect()
    assert not runs_of(recorder)
    assert not runs_of(recorder).silent
