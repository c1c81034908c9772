"""Every test of an integration gets fresh parts of the default recorder, as the library's own tests do."""  # noqa: INP001  test folders are not packages

from __future__ import annotations

from _fixtures import recorder, seen
from _signals import pytest_configure

__all__ = ["pytest_configure", "recorder", "seen"]
