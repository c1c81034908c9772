"""Running the application under uvicorn."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.store.access import STORE_VARIABLE

if TYPE_CHECKING:
    from fastapi import FastAPI

_KEEP_ALIVE_S: Final = 30
_STOP_WITHIN_S: Final = 10


def store_url(given: str | None) -> str:
    """The store that is meant.

    Raises:
        ConfigurationError: none is named.
    """
    found = given or os.environ.get(STORE_VARIABLE)
    if not found:
        raise ConfigurationError(f"store: none given, and {STORE_VARIABLE} is not set; name one, as in sqlite:///a.db")
    return found


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, so that the port is known before the first request.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ConfigurationError(f"cannot serve on address {host!r}, port {port}: {error}") from error
    return made


def run(app: FastAPI, host: str, port: int, *, tell: Callable[[str], object]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: the application.
        host: address to listen on.
        port: 0 takes any free one.
        tell: gets the address, once, when the socket listens.

    Raises:
        ConfigurationError: the address cannot be listened on.
        MissingExtraError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("the server", "server") from error
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    with listening(host, port) as made:
        shown = f"[{host}]" if ":" in host else host
        tell(f"serving http://{shown}:{made.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[made])
