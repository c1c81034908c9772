"""Chooses the service that the demo runs: a LangGraph graph if it is installed, otherwise decorated functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.installed import is_installed
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from taskpilot_obs.demo.service import Service

_GRAPH_NEEDS: Final = ("langchain_core", "langgraph", "taskpilot_obs_langchain")
KEYS: Final = {"OPENAI_API_KEY": "langchain_openai", "ANTHROPIC_API_KEY": "langchain_anthropic"}
"""Environment variables of real providers, and the package that speaks to each."""


def choose(*, decorators: bool = False, live: bool = False, environ: Mapping[str, str] | None = None) -> Service:
    """Build the service to run.

    Args:
        decorators: Build the service without LangGraph.
        live: Build the service that calls a real provider.
        environ: Environment variables that hold the provider's key; None reads those of this process.

    Raises:
        ConfigurationError: `live` without a key or the provider's package, or together with `decorators`.
        MissingExtraError: `live` without LangChain and LangGraph.
    """
    if live and decorators:
        raise ConfigurationError("--live calls the provider through LangChain: give it without --decorators")
    if live:
        return _live(os.environ if environ is None else environ)
    from taskpilot_obs.demo.service import decorated_service  # here, because decorating makes a recorder

    service = decorated_service()
    if decorators:
        return service
    missing = _missing()
    if missing:
        return service._replace(description=f"{service.description} ({missing[0]} is not installed)")
    from taskpilot_obs.demo.graph import graph_service

    return graph_service()


def _live(environ: Mapping[str, str]) -> Service:
    key = next((name for name in KEYS if environ.get(name)), None)
    if key is None:
        raise ConfigurationError(f"--live needs a key: set {' or '.join(KEYS)}")
    if _missing():
        raise MissingExtraError("--live", "demo")
    if not is_installed(KEYS[key]):
        package = _package(KEYS[key])
        raise ConfigurationError(
            f"--live calls the provider through {package}, which is not installed: pip install {package}"
        )
    from taskpilot_obs.demo.graph import live_service

    return live_service(KEYS[key])


def _missing() -> list[str]:
    return [_package(name) for name in _GRAPH_NEEDS if not is_installed(name)]


def _package(module: str) -> str:
    return module.replace("_", "-")
