"""Reads configuration files in TOML or YAML; errors name the file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError

_YAML: Final = frozenset({".yaml", ".yml"})


def load_config_file(
    path: Path, what: str, *, extra: str | None = None, parse_float: Callable[[str], Any] = float
) -> Any:
    """Read a file as YAML if its name ends in `.yaml` or `.yml`, else as TOML.

    Args:
        path: the file.
        what: what it is, for messages: "budget file".
        extra: the extra that installs PyYAML; None if YAML is not accepted.
        parse_float: parses TOML floats.

    Raises:
        ConfigurationError: the file cannot be read, or is not TOML or YAML.
        MissingExtraError: the file is YAML, and PyYAML is not installed.
    """
    named = f"{what} {str(path)!r}"
    is_yaml = extra is not None and path.suffix.lower() in _YAML
    if is_yaml:
        _require_yaml(named, str(extra))
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{named} cannot be read: {reason_of(error)}") from error
    if is_yaml:
        return _parse_yaml(content, named)
    try:
        return tomllib.loads(content, parse_float=parse_float)
    except (
        ValueError,
        ArithmeticError,
        RecursionError,
    ) as error:  # others than TOMLDecodeError: too many digits or brackets
        raise ConfigurationError(f"{named} is not TOML: {error}") from error


def _require_yaml(named: str, extra: str) -> None:
    try:
        import yaml  # noqa: F401  whether it is there
    except ImportError as error:
        raise MissingExtraError(f"The {named} in YAML", extra) from error


def _parse_yaml(content: str, named: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:  # 2026-02-30 is a ValueError
        raise ConfigurationError(f"{named} is not YAML: {error}") from error
