"""Configuration files in TOML or YAML: read once, and refused with the name of the file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError

_YAML: Final = frozenset({".yaml", ".yml"})


def load_config_file(
    path: Path, what: str, *, extra: str | None = None, parse_float: Callable[[str], Any] = float
) -> Any:
    """What a file states: YAML where its name ends in `.yaml` or `.yml`, else TOML.

    Args:
        path: the file.
        what: what it is, for messages: "budget file".
        extra: the extra that brings PyYAML; None where YAML is not read.
        parse_float: reads a TOML number that is not whole.

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
        raise ConfigurationError(f"{named} cannot be read: {error}") from error
    if is_yaml:
        return _parse_yaml(content, named)
    try:
        return tomllib.loads(content, parse_float=parse_float)
    except (tomllib.TOMLDecodeError, ArithmeticError) as error:
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
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{named} is not YAML: {error}") from error
