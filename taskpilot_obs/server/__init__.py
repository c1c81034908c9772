"""An optional server over the telemetry store: REST API, pages, feedback, health (extra `server`).

`create_app()` is a whole application, which `taskpilot-obs serve` runs; `router()`, `health_router()` and
`feedback_router()` are for mounting in an existing application. Recording needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskpilot_obs._support.late_names import late_names
from taskpilot_obs.exceptions import MissingExtraError
from taskpilot_obs.server.principal import Principal

if TYPE_CHECKING:
    from taskpilot_obs.server.app import create_app
    from taskpilot_obs.server.routers import feedback_router, health_router, router
    from taskpilot_obs.server.services import Links

__all__ = ["Links", "Principal", "create_app", "feedback_router", "health_router", "router"]

_HOMES = {
    "Links": "services",
    "create_app": "app",
    "feedback_router": "routers",
    "health_router": "routers",
    "router": "routers",
}
_imported = late_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    """At first use, because FastAPI is an extra."""
    try:
        return _imported(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("fastapi", "starlette", "jinja2"):
            raise MissingExtraError("the server", "server") from error
        raise
