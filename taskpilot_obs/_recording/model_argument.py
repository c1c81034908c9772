"""The model as an argument of a decorated function: `def ask(prompt, model="gpt-4o")`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

NAMES: Final = ("model", "model_name", "model_id")
FindModel = Callable[[tuple[object, ...], Mapping[str, object]], str | None]


class ModelArgument(NamedTuple):
    """The argument in which a function takes its model."""

    name: str
    position: int | None
    """Index among the positional arguments; None for a keyword-only argument."""
    default: str | None

    def find(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str | None:
        """The model that a call names, or the default."""
        given = kwargs.get(self.name)
        if given is None and self.position is not None and self.position < len(args):
            given = args[self.position]
        return given if isinstance(given, str) and given else self.default


def model_argument(function: Callable[..., Any]) -> ModelArgument | None:
    """Find the argument of a function that names the model; None if there is none."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    name = next((name for name in NAMES if name in parameters), None)
    if name is None:
        return None
    parameter = parameters[name]
    by_position = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    position = list(parameters).index(name) if by_position else None
    return ModelArgument(name, position, parameter.default if isinstance(parameter.default, str) else None)
