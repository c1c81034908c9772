"""Which SDKs and frameworks are installed, and what can be done about each."""

from __future__ import annotations

import re
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Final, NamedTuple

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs_opentelemetry.catalogue import CATALOGUE, CatalogueEntry

GROUPS: Final = ("opentelemetry_instrumentor", "openinference_instrumentor")


class State(StrEnum):
    """How far an SDK or framework is observed."""

    ON = "on"
    AVAILABLE = "available"
    """`instrument()` turns it on."""
    BY_HAND = "by hand"
    """The application has to do something itself."""
    NEEDS = "needs"
    """Something has to be installed."""
    REFUSED = "refused"
    """What would observe it does not work with this version."""
    MISSING = "missing"
    """It is not installed."""


class Observed(NamedTuple):
    """What is known of one SDK or framework."""

    name: str
    version: str
    state: State
    text: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip() + f": {self.state.value}, {self.text}"


def chosen(names: tuple[str, ...]) -> tuple[CatalogueEntry, ...]:
    """The targets of these names; all for none.

    Raises:
        ConfigurationError: a name is unknown.
    """
    known = {target.name: target for target in CATALOGUE}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    return tuple(known[name] for name in names) or CATALOGUE


def survey(*names: str) -> tuple[Observed, ...]:
    """What `instrument(*names)` would do, without doing it. Without names, of what is installed.

    Raises:
        ConfigurationError: a name is unknown.
    """
    found = (look_at(target) for target in chosen(names))
    return tuple(one for one in found if names or one.state is not State.MISSING)


def look_at(target: CatalogueEntry) -> Observed:
    """What can be done about one target."""
    installed = version_of(target.distribution)
    if installed is None:
        return Observed(target.name, "", State.MISSING, f"{target.distribution} is not installed")

    return Observed(target.name, installed, *(_own_spans(target, numbers_of(installed)) or _spans_by_others(target)))


def _own_spans(target: CatalogueEntry, numbers: tuple[int, ...]) -> tuple[State, str] | None:
    """What is known without looking for instrumentors."""
    if target.by_hand:
        return State.BY_HAND, target.by_hand
    if target.native_from is not None and numbers >= target.native_from:
        return State.ON, "it states spans by itself"
    if target.switch is not None:
        return State.AVAILABLE, "its own spans, without content"
    if target.refused_from is not None and numbers >= target.refused_from:
        by, version_ = target.instrumentors[0], target.refused_from[0]
        instead = f": {target.instead}" if target.instead else ""
        return State.REFUSED, f"{by} does nothing from version {version_} on, in silence{instead}"
    return None


def _spans_by_others(target: CatalogueEntry) -> tuple[State, str]:
    by = instrumentor_of(target)
    if by is not None:
        return State.AVAILABLE, f"by {by}"
    if target.instrumentors:
        return State.NEEDS, f"pip install {target.instrumentors[0]}"
    return State.REFUSED, f"this version states no spans; a newer one does: pip install -U {target.distribution}"


def instrumentor_of(target: CatalogueEntry) -> str | None:
    """The best instrumentor that is installed."""
    return next((name for name in target.instrumentors if version_of(name) is not None), None)


def load_instrumentor(name: str) -> type:
    """The class of an installed instrumentor.

    Raises:
        LookupError: the distribution has none.
    """
    for point in distribution(name).entry_points:
        if point.group in GROUPS:
            loaded = point.load()
            if isinstance(loaded, type):
                return loaded
    raise LookupError(f"{name} declares no instrumentor")


def version_of(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def numbers_of(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    begins = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, begins[0].split("."))) if begins else ()
