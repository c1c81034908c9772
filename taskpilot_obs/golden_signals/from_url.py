"""Golden signals from a `/metrics` URL: since the start from one scrape, of a stretch of time from two."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Unpack

from taskpilot_obs.golden_signals.assess import JudgeOptions, assess
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.golden_signals.from_exposition import Exposition, evidence_from_exposition, exposition, increase
from taskpilot_obs.golden_signals.http import Access, get
from taskpilot_obs.golden_signals.model import GoldenSignals


def scrape(url: str, access: Access | None = None) -> Exposition:
    """The series behind the signals at a `/metrics` URL.

    Raises:
        ConfigurationError: the URL is not an http(s) URL.
        SourceError: the endpoint cannot be reached, or answers something else.
    """
    from taskpilot_obs.exporters.prometheus.reading import ACCEPT, parse_text

    return exposition(parse_text(*get(url, access, accept=ACCEPT)))


def signals_from_url(
    url: str,
    *,
    over: timedelta | str | None = None,
    access: Access | None = None,
    sleep: Callable[[float], None] = time.sleep,
    **judged: Unpack[JudgeOptions],
) -> GoldenSignals:
    """The golden signals of the process, or of all workers, behind a `/metrics` URL.

    Args:
        url: of the endpoint, `http://…` or `https://…`.
        over: scrape twice, this far apart, and report the time in between; None: since the start.
        access: credentials, certificates and time limit.
        sleep: how to wait between the scrapes, in seconds.
        judged: see `JudgeOptions`.

    Raises:
        ConfigurationError: the URL or `over` is not readable.
        SourceError: the endpoint cannot be reached, or answers something else.
    """
    length = None if over is None else parse_window(over)
    series = scrape(url, access)
    window_s = None
    if length is not None:
        started = time.monotonic()
        sleep(length.total_seconds())
        later = scrape(url, access)
        window_s = time.monotonic() - started
        series = increase(series, later)
    evidence = evidence_from_exposition(series)
    return assess(evidence, scope="workers", window_s=window_s, **judged)
