"""`golden_signals()`: the five figures, from the source that the caller names."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from taskpilot_obs.config import get_recorder
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.window import MAX_WINDOW

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder
    from taskpilot_obs.exporters.prometheus.reading import Registry
    from taskpilot_obs.golden_signals.assess import JudgeOptions
    from taskpilot_obs.golden_signals.http import Access
    from taskpilot_obs.golden_signals.model import GoldenSignals
    from taskpilot_obs.golden_signals.thresholds import Thresholds
    from taskpilot_obs.store import Store


def golden_signals(  # noqa: PLR0913  each source has a name of its own
    window: timedelta | str | None = None,
    *,
    workflow: str | None = None,
    thresholds: Thresholds | None = None,
    recorder: Recorder | None = None,
    registry: Registry | None = None,
    prometheus: str | None = None,
    job: str | None = None,
    access: Access | None = None,
    store: str | Store | None = None,
) -> GoldenSignals:
    """The five golden signals with their evidence; each figure is None where nothing supports it.

    Without a window they cover everything since the start, over all workers of a multi-process deployment. With one
    they cover this process: slices of 10 s up to 15 minutes and of 5 min up to 24 hours, rounded up; `window_s` of
    the result states the covered time. (Where the Prometheus metrics are switched off, no window means the last 24 h
    of this process.) With `prometheus` they cover every replica that the server scrapes, with `store` everything
    that wrote to a telemetry store.

    Args:
        window: a `timedelta` or text such as "15m"; at most 24 h unless a Prometheus server is asked.
        workflow: report only this workflow; signals that are known overall only are then None.
        thresholds: bounds of healthy and warning; None for the configured ones.
        recorder: whose records to read; None for the default one.
        registry: read this Prometheus registry instead of the recorder's; it holds no past, so it takes no window.
        prometheus: base URL of a Prometheus server that has the recording rules of this library.
        job: the scrape job of that server; may be left out if it knows only one.
        access: credentials, certificates and time limit for that server.
        store: URL of a telemetry store, or one that is open; any window, or all that it holds.

    Raises:
        ConfigurationError: an argument is invalid, or two contradict each other.
        RulesNotLoadedError: the server answers, but the recording rules are not loaded in it.
        SourceError: the server cannot be reached or refuses.
        StoreError: the store is missing or cannot be used.
    """
    recorder = get_recorder() if recorder is None else recorder
    bounds = recorder.settings.thresholds if thresholds is None else thresholds
    judged: JudgeOptions = {"workflow": workflow, "thresholds": bounds}
    if store is not None:
        _refuse_beside_a_store(prometheus, registry, access, job)
        return _signals_in_store(recorder, store, window, judged)
    if prometheus is not None:
        from taskpilot_obs.golden_signals.from_prometheus import signals_from_prometheus

        return signals_from_prometheus(prometheus, window, job=job, access=access, **judged)
    _refuse_without_server(window, registry=registry, job=job, access=access)
    return _signals_here(recorder, registry, window, judged)


def _refuse_beside_a_store(*others: object) -> None:
    if any(other is not None for other in others):
        raise ConfigurationError("store: given together with prometheus, job, registry or access; drop one")


def _signals_in_store(
    recorder: Recorder, store: str | Store, window: timedelta | str | None, judged: JudgeOptions
) -> GoldenSignals:
    from taskpilot_obs.golden_signals.from_store import signals_from_store

    recorder.flush()
    return signals_from_store(window, store=store, **judged)


def _refuse_without_server(
    window: timedelta | str | None, *, registry: Registry | None, job: str | None, access: Access | None
) -> None:
    """Refuse what only a Prometheus server can answer."""
    if job is not None:
        raise ConfigurationError("job: given without prometheus=URL, the only source that knows scrape jobs")
    if access is not None:
        raise ConfigurationError("access: given without prometheus=URL, the only source that takes credentials")
    if registry is not None and window is not None:
        raise ConfigurationError("registry: given together with a window, but a registry holds no past; drop one")


def _signals_here(
    recorder: Recorder,
    registry: Registry | None,
    window: timedelta | str | None,
    judged: JudgeOptions,
) -> GoldenSignals:
    """The signals of this process, or of the workers that share its Prometheus files."""
    from taskpilot_obs.golden_signals.from_exposition import signals_from_registry
    from taskpilot_obs.golden_signals.from_window import signals_from_window

    recorder.drain()
    if window is None and registry is None and not recorder.settings.prometheus:
        window = MAX_WINDOW
    if window is None:
        source = recorder.registry if registry is None else registry
        return signals_from_registry(source, **judged)
    return signals_from_window(recorder.window, window, **judged)
