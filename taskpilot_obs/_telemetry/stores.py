"""Which telemetry store is meant where none is named."""

from __future__ import annotations

import os
import weakref
from typing import Any, Final

STORE_VARIABLE: Final = "TASKPILOT_OBS_STORE"
"""Environment variable with the URL of the store that is meant where none is named."""

filled: weakref.WeakSet[Any] = weakref.WeakSet()
"""The stores that exporters of this process write to."""


def store_of_this_process() -> Any:
    """The store that this process fills, else the URL that its environment names, else None."""
    return next(iter(filled), None) or os.environ.get(STORE_VARIABLE) or None
