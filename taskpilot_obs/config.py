"""`configure()` and the default recorder: the only global, behind a lock, resettable."""

from __future__ import annotations

import copyreg
import logging
import os
import threading
from functools import cache
from typing import TYPE_CHECKING, Unpack

from taskpilot_obs._pipeline.pipeline import Pipeline
from taskpilot_obs._recording.build import AUDIT_LOG, build
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.runtime import RecorderRuntime
from taskpilot_obs._support.version import library_version
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.providers.names import set_alias_source
from taskpilot_obs.semconv import WarningCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.settings import Options

__all__ = ["build_recorder", "configure", "get_recorder", "library_version", "running_recorder"]

_logger = logging.getLogger("taskpilot_obs")

_default = Recorder()
_lock = threading.RLock()


def configure(**options: Unpack[Options]) -> Recorder:
    """Configure the default recorder, which decorators, context managers and `golden_signals()` share.

    May be called again at any time: the new configuration replaces the one before, and what was queued is written.
    Options left out come from the environment (`TASKPILOT_OBS_*`), then from the defaults. See `Settings`.

    Returns:
        The default recorder.

    Raises:
        ConfigurationError: an option is unknown or wrong, or a file cannot be written; nothing has changed then.
        MissingExtraError: an option needs an optional package.
    """
    from taskpilot_obs.settings import Settings  # lazy, because building pydantic's models is slow

    settings = Settings.resolve(options)
    with _lock:
        before = _default.parts
        if before is not None:
            _release(before.pipeline)
        try:
            parts = build(settings, _default, before=before)
        except BaseException:
            if before is not None:
                before.pipeline.resume()
            raise
        _default.wiring.install(parts)
    if settings.enabled:
        parts.prices.warm_up()  # on a thread of its own, so that the first run has its cost on the span
    return _default


def _release(pipeline: Pipeline) -> None:
    """Pause, and close the audit log's file, because its successor may open the same one; a later batch reopens it."""
    pipeline.pause()
    for batched in pipeline.batched:
        if batched.name == AUDIT_LOG:
            getattr(batched.exporter, "shutdown", lambda _timeout_s: None)(pipeline.exit_timeout_s)


def get_recorder() -> Recorder:
    """The default recorder, configured from the environment if `configure()` has not been called."""
    if _default.parts is None:
        with _lock:
            if _default.parts is None:
                _configure_at_first_use()
    return _default


def _aliases() -> Mapping[str, str]:
    """The aliases of models that filters and budgets know: the default recorder's, or the environment's without it.

    Raises:
        ConfigurationError: nothing is configured, and a price file that the environment names is wrong.
    """
    if _default.parts is not None:
        return _default.runtime.prices.aliases
    if not os.environ.get("TASKPILOT_OBS_PRICES"):
        return {}
    from taskpilot_obs.settings import price_files

    return _aliases_in(price_files())


@cache
def _aliases_in(files: tuple[str, ...]) -> Mapping[str, str]:
    return PriceTable.load(files).aliases


set_alias_source(_aliases)


def _default_runtime() -> RecorderRuntime:
    return get_recorder().runtime


def _configure_at_first_use() -> None:
    """Configure from the environment, without failing the import of a module that decorates its functions.

    Raises:
        ConfigurationError: more is wrong than the metrics of the environment.
    """
    try:
        configure()
    except ConfigurationError as error:
        configure(prometheus=False)
        message = "taskpilot_obs: no metrics are exported until configure() succeeds: %s [%s]"
        _logger.error(message, error, WarningCode.NOT_CONFIGURED)  # noqa: TRY400  it says all


# Pickled functions and handlers record where they are unpickled.
copyreg.pickle(Recorder, lambda _: (get_recorder, ()))
copyreg.pickle(RecorderRuntime, lambda _: (_default_runtime, ()))


def running_recorder() -> Recorder | None:
    """Return the default recorder if it is configured, else None; the call itself configures nothing."""
    return None if _default.parts is None else _default


def build_recorder(**options: Unpack[Options]) -> Recorder:
    """Build a recorder that is independent of the default one; options as for `configure`."""
    from taskpilot_obs.settings import Settings

    recorder = Recorder()
    recorder.wiring.install(build(Settings.resolve(options), recorder))
    return recorder
