"""Label values: cleaned for the exposition, and limited by `semconv.LABEL_BOUNDS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs.semconv import LABEL_BOUNDS, NONE, OTHER, fixed_values

LONGEST_VALUE = 200
"""Maximum characters of a label value; longer ones are cut and end in an ellipsis."""
K = TypeVar("K")
V = TypeVar("V")
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\ufffd")


def clean(value: object) -> str:
    """Convert any value to text that is valid in every exposition format, without running the value's code.

    None and "" become `__none__`, other types become the type's name, and lone surrogates and control characters are
    replaced.
    """
    if type(value) is str and 0 < len(value) <= LONGEST_VALUE and value.isprintable():
        return value
    if value is None:
        return NONE
    if not isinstance(value, str):
        return clean(f"<{type(value).__name__}>")
    text = str.__str__(value)
    if len(text) > LONGEST_VALUE:
        text = text[: LONGEST_VALUE - 1] + "…"
    if not text.isprintable():
        text = text.encode("utf-8", "replace").decode("utf-8").translate(_CONTROLS)
    return text or NONE


class Admission:
    """The names admitted as values of a label: the first ones, for good. One per registry, shared by its families."""

    def __init__(self) -> None:
        self._admitted: dict[str, set[str]] = {label: {NONE, OTHER} for label in LABEL_BOUNDS}

    def admit(self, family: str, label: str, value: str) -> str:
        """Return the value, or `__other__` if the label is full or has a fixed set without it in this family."""
        names = self._admitted.get(label)
        if names is None:
            fixed = fixed_values(family, label)
            return value if not fixed or value in fixed or value == NONE else OTHER
        if value in names:
            return value
        if len(names) - 2 >= LABEL_BOUNDS[label]:
            return OTHER
        names.add(value)
        return value

    def shown(self, label: str, value: object) -> str:
        """Return what a bounded label would show for the value, without admitting it."""
        text, names = clean(value), self._admitted[label]
        return text if text in names or len(names) - 2 < LABEL_BOUNDS[label] else OTHER


class SeriesCache(BoundedDict[K, V]):
    """What was resolved for the names of runs, by these names; folded ones share an entry, however many there are."""

    def __init__(self) -> None:
        super().__init__(_MAX_CACHED)
        self._changed: BoundedDict[K, V] = BoundedDict(_MAX_CACHED)

    def find(self, names: K, shown: K, resolve: Callable[[], V]) -> V:
        """Return what is kept for names that are not in this dictionary, resolved where it is new.

        Args:
            names: the names.
            shown: the names as labels show them.
            resolve: called where nothing is kept.
        """
        kept = self if names == shown else self._changed
        found = kept.get(shown)
        if found is None:
            found = kept[shown] = resolve()
        return found


_MAX_CACHED = 4_096
