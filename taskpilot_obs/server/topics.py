"""Further topics of the server: modules beside this one that add routes and pages when they are there.

Such a module has `rest`, an `APIRouter` with the prefix `/v1` and `ProblemRoute` whose routes take `Reading`, and
`pages`, a tuple of `Shown`. It is mounted under the same access as everything else, in `create_app()` and `router()`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

NAMES: Final = ("comparisons",)
"""Benchmark runs and experiments."""


def topics() -> list[ModuleType]:
    """The topics that this version has."""
    homes = [f"taskpilot_obs.server.{name}" for name in NAMES]
    return [import_module(home) for home in homes if find_spec(home) is not None]
