"""The environment that a service is started with: versions, settings, directories, tracing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Final

from taskpilot_obs._recording.spans import installed_provider
from taskpilot_obs._support.installed import is_installed
from taskpilot_obs.doctor.finding import Finding, ok, problem, warning
from taskpilot_obs.exceptions import TaskpilotError
from taskpilot_obs.exporters.prometheus.worker_files import VARIABLE, dead_processes, namespaces
from taskpilot_obs.settings import ENV_PREFIX, STDOUT, Settings

DISTRIBUTION: Final = "taskpilot-obs"
INTEGRATIONS: Final = "taskpilot_obs.doctor"
LITTLE_ROOM_BYTES: Final = 500_000_000
MANY_DEAD: Final = 64
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)")
_WORKERS: Final = re.compile(r"(?:--workers[= ]|-w ?)(\d+)")
_ENDPOINTS: Final = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def check_environment(environ: Mapping[str, str], workers: int | None) -> list[Finding]:
    """Check everything that needs no running service."""
    found = [*_versions(), _workers(environ, workers)]
    if environ.get(VARIABLE):
        found.append(_directory(Path(environ[VARIABLE])))
    try:
        settings = Settings.resolve({}, environ)
    except TaskpilotError as error:
        remedy = f"correct or unset the {ENV_PREFIX}… variable that is named"
        return [*found, problem("settings", f"the environment does not make a configuration: {error}", remedy)]
    return [*found, ok("settings", f"service {settings.service!r}"), _audit_log(settings), _tracing(settings, environ)]


def check_integrations() -> list[Finding]:
    """Ask the integrations what they find: each declares a function under the entry point group `taskpilot_obs.doctor`.

    An integration whose extra is not installed has nothing to say.
    """
    found: list[Finding] = []
    for point in entry_points(group=INTEGRATIONS):
        try:
            check = point.load()
        except ImportError:
            continue
        found += check()
    return found


# --- versions --------------------------------------------------------------------------------------------------------


def _versions() -> list[Finding]:
    found = [
        problem("versions", f"{name} {installed} is installed, {needed} or newer is needed", f"pip install -U {name}")
        for name, installed, needed in _outdated(requires(DISTRIBUTION) or ())
    ]
    return found or [ok("versions", f"{DISTRIBUTION} {version(DISTRIBUTION)}; what it needs is there")]


def _outdated(requirements: Iterator[str] | list[str] | tuple[()]) -> Iterator[tuple[str, str, str]]:
    """Packages that are too old; those of extras only where they are installed."""
    for requirement in requirements:
        named = _REQUIREMENT.match(requirement)
        if named is None:
            continue
        name, needed = named.groups()
        try:
            installed = version(name)
        except PackageNotFoundError:
            if "extra ==" not in requirement:
                yield name, "no version", needed
            continue
        if _parts(installed) < _parts(needed):
            yield name, installed, needed


def _parts(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


# --- many processes --------------------------------------------------------------------------------------------------


def _workers(environ: Mapping[str, str], workers: int | None) -> Finding:
    number = workers if workers is not None else _number_of_workers(environ)
    if environ.get(VARIABLE) or number <= 1:
        return ok("processes", f"{number} process" if number == 1 else f"{number} processes, {VARIABLE} is set")
    return problem(
        "processes",
        f"{number} processes, and each keeps its own metrics: a scrape sees one of them at random",
        f"set {VARIABLE} to a directory that exists and is empty before the service starts",
    )


def _number_of_workers(environ: Mapping[str, str]) -> int:
    given = _WORKERS.search(environ.get("GUNICORN_CMD_ARGS", ""))
    text = given[1] if given else environ.get("WEB_CONCURRENCY", "1")
    return int(text) if text.isdecimal() else 1


def _directory(path: Path) -> Finding:
    check = "multi-process directory"
    if not path.is_dir():
        return problem(check, f"{VARIABLE} is {str(path)!r}, which is not a directory", "create it before the start")
    if not os.access(path, os.W_OK | os.X_OK):
        return problem(check, f"{path} may not be written", "give it to the user that the service runs as")
    if len(namespaces(path)) > 1:
        return warning(
            check,
            f"{path} holds values of an earlier run, or of another container",
            "empty it between runs, and give each container one of its own",
        )
    dead = len(dead_processes(path))
    if dead > MANY_DEAD:
        return warning(
            check,
            f"{path} holds files of {dead} processes that have ended",
            "scrape by taskpilot_obs.exposition, or use the hooks of taskpilot_obs.gunicorn: both add them up",
        )
    return ok(check, f"{path} may be written")


# --- audit log -------------------------------------------------------------------------------------------------------


def _audit_log(settings: Settings) -> Finding:
    check, target = "audit log", settings.audit_log
    if not isinstance(target, Path):
        return ok(check, "none is configured in the environment")
    if str(target) == STDOUT:
        return ok(check, "goes to standard output")
    folder = target.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return problem(
            check, f"{target}: {folder} may not be written", "choose another path, or change the owner of the folder"
        )
    if target.exists() and not os.access(target, os.W_OK):
        return problem(check, f"{target} may not be written", "give it to the user that the service runs as")
    room = shutil.disk_usage(folder).free
    if room < LITTLE_ROOM_BYTES:
        text = f"{folder} has {room / 1e6:.0f} MB left; records that find no room are dropped and counted"
        return warning(check, text, f"free some, or set {ENV_PREFIX}AUDIT_KEEP")
    return ok(check, f"{target} can be written")


# --- tracing ---------------------------------------------------------------------------------------------------------


def _tracing(settings: Settings, environ: Mapping[str, str]) -> Finding:
    check = "tracing"
    if not settings.tracing:
        return ok(check, "switched off")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return warning(check, "OTEL_SDK_DISABLED is true: there are no spans", "unset it, or set tracing=False")
    if installed_provider() is not None:
        return _provider()
    if not is_installed("opentelemetry.sdk"):
        return warning(
            check,
            "opentelemetry-sdk is not installed: there are no spans",
            "pip install opentelemetry-sdk and an exporter, or set tracing=False",
        )
    if not any(environ.get(name, "none") != "none" for name in _ENDPOINTS):
        return warning(
            check,
            "no exporter is named in the environment, and no tracer provider is seen from here",
            "set OTEL_EXPORTER_OTLP_ENDPOINT, or make sure that the application sets a provider with an exporter",
        )
    return ok(check, "an exporter is named in the environment")


def _provider() -> Finding:
    provider = installed_provider()
    # Not public, but nothing public says whether a provider has anywhere to send its spans.
    processors = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", None)
    if processors == ():
        return warning("tracing", "the tracer provider has no exporter", "add a BatchSpanProcessor with an exporter")
    return ok("tracing", f"spans go to {type(provider).__name__}")
