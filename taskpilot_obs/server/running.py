"""Running the application under uvicorn."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs._telemetry.stores import STORE_VARIABLE
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI

_KEEP_ALIVE_S: Final = 30
_STOP_WITHIN_S: Final = 10
_START_WITHIN_S: Final = 20.0
_POLL_S: Final = 0.02


def store_url(given: str | None) -> str:
    """Return the store's URL.

    Raises:
        ConfigurationError: no store is named.
    """
    found = given or os.environ.get(STORE_VARIABLE)
    if not found:
        raise ConfigurationError(f"store: none given, and {STORE_VARIABLE} is not set; name one, as in sqlite:///a.db")
    return found


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that the port is known before the first request.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen()  # now, because a reader of the address may connect before the loop has started
    except OSError as error:
        made.close()
        raise ConfigurationError(f"cannot serve on address {host!r}, port {port}: {reason_of(error)}") from error
    return made


@contextmanager
def in_background(app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve from a thread until the end of the block; yields the address.

    Raises:
        ConfigurationError: the address cannot be listened on, or the application does not start.
        MissingExtraError: uvicorn is not installed.
    """
    with listening(host, port) as made:
        server = _server(app)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [made]}, name="taskpilot_obs-server", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise ConfigurationError(
                f"the server did not start: {error}; this process may have no more threads"
            ) from error
        deadline = time.monotonic() + _START_WITHIN_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ConfigurationError("the server did not start; its log says why")
            time.sleep(_POLL_S)
        try:
            yield _address(host, made)
        finally:
            server.should_exit = True
            thread.join(_STOP_WITHIN_S)


def run(app: FastAPI, host: str, port: int, *, tell: Callable[[str], object]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: the application.
        host: address to listen on.
        port: 0 takes any free one.
        tell: called once with the address, when the socket listens.

    Raises:
        ConfigurationError: the address cannot be listened on.
        MissingExtraError: uvicorn is not installed.
    """
    server = _server(app)
    with listening(host, port) as made:
        tell(f"serving {_address(host, made)}/")
        server.run(sockets=[made])


def _server(app: FastAPI) -> Any:
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
    return uvicorn.Server(config)


def _address(host: str, made: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{made.getsockname()[1]}"
