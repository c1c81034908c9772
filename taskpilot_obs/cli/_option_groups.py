"""Groups of options that several commands have: a dataclass in Python, single options on the command line."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command for Typer, which knows single options only.

    Each parameter whose type is a dataclass becomes the options that are its fields. The parameter's default states
    their defaults.

    Args:
        command: takes the groups.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    @wraps(command)
    def taken_apart(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    options = [option for each in signature(command).parameters.values() for option in _options(each, hints[each.name])]
    taken_apart.__annotations__ = {option.name: option.annotation for option in options}
    taken_apart.__signature__ = Signature(options)  # type: ignore[attr-defined]  # what `inspect.signature` reads
    return taken_apart


def _options(parameter: Parameter, kind: Any) -> Iterator[Parameter]:
    if not is_dataclass(kind):
        yield parameter.replace(annotation=kind)
        return
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = getattr(parameter.default, field.name)
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])
