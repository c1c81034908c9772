"""Turn on what is installed, and record what it states."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import Recorder
from taskpilot_obs_opentelemetry.bridge import GenAiBridge
from taskpilot_obs_opentelemetry.catalogue import NO_CONTENT, CatalogueEntry
from taskpilot_obs_opentelemetry.importing import forget, is_awaited, is_imported, when_imported
from taskpilot_obs_opentelemetry.sampling import RecordAll
from taskpilot_obs_opentelemetry.surveying import (
    Observed,
    State,
    chosen,
    instrumentor_of,
    load_instrumentor,
    look_at,
)

__all__ = ["instrument", "uninstrument"]

logger = logging.getLogger("taskpilot_obs")
_lock = threading.Lock()
_LATER: Final = ", once it is imported"


class _Installed:
    """What `instrument` has set up in this process."""

    def __init__(self) -> None:
        self.bridge: GenAiBridge | None = None
        self.sampler: RecordAll | None = None
        self.undo: dict[str, Callable[[], object]] = {}
        self.variables: set[str] = set()
        """Those of the environment."""


_installed = _Installed()


def instrument(*names: str, recorder: Recorder | None = None) -> tuple[Observed, ...]:
    """Observe every supported SDK and framework that is installed, or those that are named. Harmless when repeated.

    Sets up a tracer provider that exports nothing where there is none; otherwise joins the application's, whose
    exporters go on to get what its sampler chooses. Call it behind the application's own setup of OpenTelemetry, and
    before the first call. Content stays out of spans.

    Args:
        names: such as `openai` or `pydantic_ai`; all when left out.
        recorder: where to; the default one when left out.

    Returns:
        What is on now, or will be once the application imports it, and what could not be done and why; it is logged
        as well.

    Raises:
        ConfigurationError: a name is unknown, or the tracer provider takes no span processors.
    """
    targets = chosen(names)
    with _lock:
        _attach(recorder)
        for variable, value in NO_CONTENT.items():
            if variable not in os.environ:
                os.environ[variable] = value
                _installed.variables.add(variable)
        done = [_turn_on(target) for target in targets]
    found = tuple(one for one in done if names or one.state is not State.MISSING)
    for one in found:
        _log(one)
    return found


def uninstrument() -> None:
    """Undo what `instrument` did; a tracer provider that it set stays, without a bridge. Harmless when repeated."""
    with _lock:
        bridge, _installed.bridge = _installed.bridge, None  # first, so that what is turned on late undoes itself
        while _installed.undo:
            _, undo = _installed.undo.popitem()
            undo()
        while _installed.variables:
            os.environ.pop(_installed.variables.pop(), None)
        if bridge is not None:
            bridge.shutdown()
        if _installed.sampler is not None:
            _installed.sampler.active = False
        _installed.sampler = None


def _attach(recorder: Recorder | None) -> None:
    if _installed.bridge is not None:
        return
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = TracerProvider(sampler=ALWAYS_OFF)
        trace.set_tracer_provider(provider)
    if not isinstance(provider, TracerProvider):
        kind = type(provider).__name__
        raise ConfigurationError(
            f"the tracer provider is a {kind}, and takes no span processors: use OpenTelemetry's SDK"
        )
    if not isinstance(provider.sampler, RecordAll):
        provider.sampler = _installed.sampler = RecordAll(provider.sampler)
        _resample(provider, provider.sampler)
    elif not provider.sampler.active:  # of an earlier `instrument`; one that is active is the application's own
        provider.sampler.active = True
        _installed.sampler = provider.sampler
    _installed.bridge = GenAiBridge(recorder)
    provider.add_span_processor(_installed.bridge)


def _resample(provider: TracerProvider, sampler: RecordAll) -> None:
    """Give the sampler to tracers that exist, such as those of modules imported before: they keep what they began with.

    Only the SDK knows them, from version 1.42 on, and has no public list.
    """
    tracers: dict[object, Any] = getattr(provider, "_tracers", {})
    for tracer in tuple(tracers.values()):
        if getattr(tracer, "sampler", None) is sampler.inner:
            tracer.sampler = sampler


def _log(one: Observed) -> None:
    logger.log(logging.INFO if one.state in (State.ON, State.BY_HAND) else logging.WARNING, "instrument: %s", one)


def _turn_on(target: CatalogueEntry) -> Observed:
    found = look_at(target)
    if found.state is State.AVAILABLE and target.name not in _installed.undo:
        if is_imported(target.module):
            return _switched_on(target, found)
        _installed.undo[target.name] = lambda: forget(target.module)
        when_imported(target.module, lambda: _turn_on_late(target, found))
    is_late = is_awaited(target.module)
    if target.name not in _installed.undo:
        return found
    return found._replace(state=State.ON, text=found.text + (_LATER if is_late else ""))


def _turn_on_late(target: CatalogueEntry, found: Observed) -> None:
    """Turn a target on behind its import, without a lock: another thread may hold it and wait for this import."""
    done = _switched_on(target, found)
    undo = _installed.undo
    if done.state is not State.ON:
        undo.pop(target.name, None)
        _log(done)
    elif _installed.bridge is None:  # `uninstrument` came meanwhile, and did not find it
        undo.pop(target.name, _nothing)()


def _nothing() -> None:
    """What another thread has undone needs nothing more."""


def _switched_on(target: CatalogueEntry, found: Observed) -> Observed:
    try:
        _installed.undo[target.name] = _switched(target)
    except Exception as error:  # noqa: BLE001  one package that does not fit must not keep the others from being seen
        return found._replace(state=State.REFUSED, text=f"{found.text}: {type(error).__name__}: {error}")
    return found._replace(state=State.ON)


def _switched(target: CatalogueEntry) -> Callable[[], object]:
    """Turn a target on; returns what turns it off."""
    if target.switch is not None and target.switch_off is not None:
        target.switch()
        return target.switch_off
    name = instrumentor_of(target)
    if name is None:
        raise LookupError("its instrumentor has gone")
    made: Any = load_instrumentor(name)()
    made.instrument(raise_exception_on_conflict=True)  # otherwise a conflict is logged, and nothing recorded
    undo: Callable[[], object] = made.uninstrument
    return undo
