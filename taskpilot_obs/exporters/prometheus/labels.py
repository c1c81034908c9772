"""Label values: cleaned for the exposition, and limited by `semconv.LABEL_BOUNDS`."""

from __future__ import annotations

from taskpilot_obs.semconv import LABEL_BOUNDS, NONE, OTHER, fixed_values

LONGEST_VALUE = 200
"""Maximum characters of a label value; longer ones are cut and end in an ellipsis."""
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
