"""Series of the unit tests of the alert rules, in promtool's notation."""

from __future__ import annotations


def ramp(*phases: tuple[float, int], start: float = 0) -> str:
    """A counter in promtool's notation: (increase a minute, minutes), one phase after the other."""
    value, parts = start, []
    for index, (step, minutes) in enumerate(phases):
        first = value if index == 0 else value + step
        count = minutes if index == 0 else minutes - 1
        parts.append(f"{first:.10g}+{step:.10g}x{count}")
        value = first + step * count
    return " ".join(parts)


def by_label(metric: str, labels: str, name: str, *values: str) -> tuple[str, ...]:
    """The series of a metric that differ by one more label, one for each of its values."""
    return tuple(f'{metric}{{{labels},{name}="{value}"}}' for value in values)


class Counters:
    """Counters that grow side by side, such as those of good and of bad runs.

    Args:
        names: the series.
    """

    def __init__(self, *names: str) -> None:
        self._names = names

    def growing(self, *phases: tuple[float, ...]) -> dict[str, str]:
        """(The increase of each a minute, minutes), one phase after the other."""
        return {
            name: ramp(*((phase[index], int(phase[-1])) for phase in phases)) for index, name in enumerate(self._names)
        }

    def at_once(self, *values: float) -> dict[str, str]:
        """Nothing for an hour, then everything within a minute and nothing for another hour."""
        return {name: then(steady(0, 60), steady(value, 60)) for name, value in zip(self._names, values, strict=True)}

    def restarted(self, *steps: float) -> dict[str, str]:
        """The increase of each a minute, for 90 minutes in one process and for 90 in the next."""
        return {name: then(ramp((step, 90)), ramp((step, 90))) for name, step in zip(self._names, steps, strict=True)}


def steady(value: float, minutes: int) -> str:
    """A series that keeps its value; with `absent`, one that is born later."""
    return f"{value:.10g}+0x{minutes}"


def twice(series: dict[str, str]) -> dict[str, str]:
    """Counters of one process, and the same again of the process that replaces it."""
    return {name: then(text, text) for name, text in series.items()}


def absent(minutes: int) -> str:
    """No sample for so many minutes."""
    return f"_x{minutes}"


def then(*parts: str) -> str:
    """Phases in turn; a counter that starts again has been reset."""
    return " ".join(parts)


def histogram(name: str, labels: str, counts: dict[str, float], minutes: int) -> dict[str, str]:
    """Buckets that each grow by so many observations a minute; cumulative, the last one is +Inf."""
    return {f'{name}_bucket{{{labels},le="{bound}"}}': ramp((step, minutes)) for bound, step in counts.items()}
