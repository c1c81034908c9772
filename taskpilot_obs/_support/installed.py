"""Whether optional packages are there, without importing them."""

from __future__ import annotations

from importlib.util import find_spec


def is_installed(*modules: str) -> bool:
    """Whether these modules can be found; `find_spec` itself raises where a package around one is missing.

    Args:
        modules: their full names.
    """
    try:
        return all(find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:
        return False
