"""The rules as templates of Helm, and which settings are values of the chart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel

from scripts.chart.knobs import Knob, Notes, Structural, TextKnob
from taskpilot_obs.rules.folders import render
from taskpilot_obs.rules.settings import RuleSettings

Model = TypeVar("Model", bound=BaseModel)
Keys = tuple[str, ...]
Scalar = float | str
_DURATION: Final = re.compile(r"[1-9][0-9]*[smhdw]")


class Leaf(NamedTuple):
    """One setting that is a figure, a duration or an address."""

    path: Keys
    value: Scalar

    @property
    def probes(self) -> tuple[Scalar, ...]:
        """Other values, to see whether the template gives what Python renders."""
        if isinstance(self.value, str):
            return ("7m", "11m") if _DURATION.fullmatch(self.value) else ("https://example.com/x",)
        if isinstance(self.value, int):
            return (self.value + 1, self.value + 7)
        return (self.value * 0.8, self.value + 0.125)


def leaves(settings: BaseModel, path: Keys = ()) -> Iterator[Leaf]:
    """Every scalar setting; lists and choices are not values of a chart."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*path, name))
        elif type(value) in {int, float} or (type(value) is str and value):
            yield Leaf((*path, name), value)


def changed(settings: Model, values: Mapping[Keys, object]) -> Model:
    """The settings with other values, unchecked."""
    update: dict[str, object] = {}
    for name in {path[0] for path in values}:
        inner = {path[1:]: value for path, value in values.items() if path[0] == name}
        update[name] = inner[()] if () in inner else changed(getattr(settings, name), inner)
    return settings.model_copy(update=update)


def templates(settings: RuleSettings) -> tuple[dict[str, str], tuple[Leaf, ...]]:
    """The text of each rule file as a template, and the settings that are values of the chart."""
    values = tuple(leaf for leaf in leaves(settings) if is_value(settings, leaf))
    notes = Notes()
    files = render(changed(settings, {leaf.path: _knob(leaf, notes) for leaf in values}))
    return {name: notes.as_template(text) for name, text in files.items()}, values


def is_value(settings: RuleSettings, leaf: Leaf) -> bool:
    """Whether the template of a setting gives, for other values, what Python renders."""
    notes = Notes()
    try:
        files = render(changed(settings, {leaf.path: _knob(leaf, notes)}))
        return all(
            {name: notes.filled(text, value) for name, text in files.items()}
            == render(changed(settings, {leaf.path: value}))
            for value in (leaf.value, *leaf.probes)
        )
    except (Structural, ValueError):
        return False


def _knob(leaf: Leaf, notes: Notes) -> Knob | TextKnob:
    template = ".Values.settings." + ".".join(leaf.path)
    if isinstance(leaf.value, str):
        return TextKnob(leaf.value, template, notes)
    return Knob(leaf.value, template, notes, whole=isinstance(leaf.value, int))
