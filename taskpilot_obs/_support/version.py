"""The version of the library."""

from __future__ import annotations


def library_version() -> str:
    """The installed version of taskpilot-obs."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("taskpilot-obs")
    except (PackageNotFoundError, OSError):  # a checkout that is not installed; no file can be opened
        return "0+unknown"
