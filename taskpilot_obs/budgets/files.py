"""Budgets from TOML and YAML files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

from taskpilot_obs._support.config_files import load_config_file
from taskpilot_obs.budgets.model import Budget
from taskpilot_obs.exceptions import ConfigurationError

_OPTIONS: Final = (
    *("name", "limit_usd", "limit_tokens", "limit_requests", "period", "timezone", "scope", "thresholds", "action"),
    *("when_store_down", "when_unpriced", "max_output_tokens"),
)


def load_budgets(path: str | os.PathLike[str]) -> tuple[Budget, ...]:
    """Load the budgets of a file, a list `budgets` of tables with the options of `Budget`.

    Returns:
        The budgets in the order of the file.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML or YAML, or an option is wrong; the message names it.
        MissingExtraError: the file is YAML, and the extra `rules` is not installed.
    """
    file = Path(path)
    stated = load_config_file(file, "budget file", extra="rules", parse_float=_number)
    entries = stated.get("budgets") if isinstance(stated, Mapping) else None
    if not isinstance(stated, Mapping) or not isinstance(entries, list) or set(stated) != {"budgets"}:
        raise ConfigurationError(f"budget file {str(file)!r}: it must hold one list, `budgets`, and nothing else")
    return tuple(_budget(file, entry) for entry in entries)


def _budget(file: Path, entry: object) -> Budget:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"budget file {str(file)!r}: given {entry!r}; a budget is a table of options")
    unknown = sorted(str(name) for name in entry if name not in _OPTIONS)
    if unknown or "name" not in entry:
        problem = f"unknown option {unknown[0]!r}" if unknown else "a budget without a name"
        raise ConfigurationError(f"budget file {str(file)!r}: {problem}; allowed are {', '.join(_OPTIONS)}")
    try:
        return Budget(**{str(name): value for name, value in entry.items()})
    except ConfigurationError as error:
        raise ConfigurationError(f"budget file {str(file)!r}: {error}") from error


def _number(text: str) -> float | Decimal:
    """Parse a share as a float; numbers that floats cannot represent stay as written."""
    return float(text) if Decimal(str(float(text))) == Decimal(text.replace("_", "")) else Decimal(text)


def as_budgets(given: object) -> tuple[Budget, ...]:
    """Read the argument of `configure(budgets=…)`: `Budget` objects and paths of files.

    Raises:
        ConfigurationError: something else, or a file is wrong.
    """
    if isinstance(given, str | os.PathLike):
        return load_budgets(given)
    if isinstance(given, Budget):
        return (given,)
    raise ConfigurationError(
        f"budgets: given an object of type {type(given).__name__}; allowed are Budget(…) and paths of files"
    )
