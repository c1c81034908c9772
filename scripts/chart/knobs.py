"""Settings that remember how they are used: rendered rules then hold an expression of Helm instead of a figure.

A rule is made by Python code from figures. Give that code a `Knob` instead of a figure, and what it computes and writes
becomes a placeholder. Where the code compares a figure, the rules' structure depends on it: that cannot be a value of a
chart, and `Structural` is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, Self


class Structural(Exception):  # noqa: N818  an answer, not an error
    """The setting decides which rules there are, or of which parts they consist."""


class Placeholder(NamedTuple):
    """A place in rendered rules."""

    template: str
    """What Helm evaluates."""
    text: Callable[[object], str]
    """What Python writes for a value of the setting."""


class Notes:
    """The placeholders of one rendering, by the marks that stand for them in the text."""

    _MARK: Final = re.compile("⟦([0-9]+)⟧")

    def __init__(self) -> None:
        self._placed: list[Placeholder] = []

    def mark(self, template: str, text: Callable[[object], str]) -> str:
        """A mark for a new placeholder."""
        self._placed.append(Placeholder(template, text))
        return f"⟦{len(self._placed) - 1}⟧"

    def filled(self, text: str, value: object) -> str:
        """The text with what Python writes for a value of the setting."""
        return self._MARK.sub(lambda found: self._placed[int(found[1])].text(value), text)

    def as_template(self, text: str) -> str:
        """The text as a template of Helm; the braces of Prometheus' own templates are kept from Helm."""
        escaped = re.sub(r"{{|}}", lambda found: f'{{{{ "{found[0]}" }}}}', text)
        return self._MARK.sub(lambda found: f"{{{{ {self._placed[int(found[1])].template} }}}}", escaped)


class TextKnob(str):
    """A duration or an address."""

    __slots__ = ("_notes", "_template")
    _notes: Notes
    _template: str

    def __new__(cls, value: str, template: str, notes: Notes) -> Self:
        """A text that Helm reads from `template`."""
        knob = super().__new__(cls, value)
        knob._template, knob._notes = template, notes
        return knob

    def __format__(self, spec: str) -> str:
        if spec:
            raise Structural("padded")
        return self._notes.mark(self._template, str)


class Knob(float):
    """A figure of the settings, or what was computed from it."""

    __slots__ = ("_compute", "_notes", "_template", "_whole")
    _compute: Callable[[float], float]
    _notes: Notes
    _template: str
    _whole: bool

    def __new__(
        cls,
        value: float,
        template: str,
        notes: Notes,
        compute: Callable[[float], float] | None = None,
        *,
        whole: bool = False,
    ) -> Self:
        """A figure that Helm reads from `template`; `compute` is what Python makes of the setting."""
        knob = super().__new__(cls, value)
        knob._template, knob._notes, knob._whole = template, notes, whole
        knob._compute = compute or (lambda given: given)
        return knob

    def _with(self, function: str, other: float, operation: Callable[[float, float], float], *, left: bool) -> Knob:
        mine = self._compute
        first, second = (self._template, repr(other)) if left else (repr(other), self._template)

        def compute(given: float) -> float:
            return operation(mine(given), other) if left else operation(other, mine(given))

        whole = self._whole and isinstance(other, int)
        name = function if whole else f"{function}f"
        return Knob(compute(float(0) + 1), f"({name} {first} {second})", self._notes, compute, whole=whole)

    def __add__(self, other: float) -> Knob:
        return self._with("add", other, lambda a, b: a + b, left=True)

    def __radd__(self, other: float) -> Knob:
        return self._with("add", other, lambda a, b: a + b, left=False)

    def __sub__(self, other: float) -> Knob:
        return self._with("sub", other, lambda a, b: a - b, left=True)

    def __rsub__(self, other: float) -> Knob:
        return self._with("sub", other, lambda a, b: a - b, left=False)

    def __mul__(self, other: float) -> Knob:
        return self._with("mul", other, lambda a, b: a * b, left=True)

    def __rmul__(self, other: float) -> Knob:
        return self._with("mul", other, lambda a, b: a * b, left=False)

    def __truediv__(self, other: float) -> Knob:
        return self._with("div", float(other), lambda a, b: a / b, left=True)

    def __rtruediv__(self, other: float) -> Knob:
        return self._with("div", float(other), lambda a, b: a / b, left=False)

    def __round__(self, digits: int | None = None) -> _Rounded:  # type: ignore[override]
        if digits != _CENTS:
            raise Structural("rounded")
        return _Rounded(self)

    def __format__(self, spec: str) -> str:
        compute = self._compute
        if not spec:
            if not self._whole:
                raise Structural("written as Python writes a fraction")
            return self._notes.mark(f"int64 {self._template}", lambda given: str(int(compute(_figure(given)))))
        if spec == ".2f":
            return self._notes.mark(_MONEY.format(self._template), lambda given: _money(compute(_figure(given))))
        verb = f'printf "%{spec}" (float64 {self._template})'
        return self._notes.mark(verb, lambda given: format(compute(_figure(given)), spec))

    def _compared(self, _: object) -> bool:
        raise Structural("compared")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _compared
    __hash__ = float.__hash__

    def __bool__(self) -> bool:
        raise Structural("compared")

    def __int__(self) -> int:
        raise Structural("compared")


class _Rounded(NamedTuple):
    """A figure in cents. It counts as equal to the figure; the placeholder for money decides when it is rendered."""

    exact: Knob

    def __eq__(self, other: object) -> bool:
        return other is self.exact

    def __hash__(self) -> int:
        return id(self.exact)


_CENTS: Final = 2
_MONEY: Final = 'include "taskpilot-obs.usd" {}'


def _money(amount: float) -> str:
    return f"{amount:.2f}" if round(amount, _CENTS) == amount else f"{amount:.12g}"


def _figure(given: object) -> float:
    assert isinstance(given, int | float)  # noqa: S101  a setting that is a figure has only figures
    return given
