"""A telemetry store: version, tables, encoding, rights, what has to be summed up, size and clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from taskpilot_obs.doctor.finding import Finding, ok, problem, warning
from taskpilot_obs.exceptions import StoreError

if TYPE_CHECKING:
    from taskpilot_obs.store.health import StoreHealth

CHECK: Final = "store"
_LARGE_BYTES: Final = 10_000_000_000
_FAR: Final = timedelta(minutes=1)
_LAG: Final = timedelta(hours=26)
"""A nightly `aggregate` that was missed once."""


def check_store(url: str) -> list[Finding]:
    """Look at a store, and change nothing in it.

    Raises:
        ConfigurationError: the URL names no store.
        MissingExtraError: the driver of its database is not installed.
    """
    from taskpilot_obs.store.health import health_of

    try:
        found = health_of(url)
    except StoreError as error:
        return [problem(CHECK, str(error), "see docs/store.md")]
    return [
        check(found) for check in (_version, _tables, _encoding, _rights, _lag, _partitions, _size, _clock, _budgets)
    ]


def _version(found: StoreHealth) -> Finding:
    text = f"{found.name} has version {found.version}"
    if found.is_current:
        return ok(CHECK, text)
    return problem(CHECK, f"{text}, this code needs {found.wanted}", "taskpilot-obs db upgrade --store URL")


def _tables(found: StoreHealth) -> Finding:
    if not found.differences:
        return ok(CHECK, "its tables are as expected")
    return problem(CHECK, f"{len(found.differences)} differences: {found.differences[0]}", "taskpilot-obs db check")


def _encoding(found: StoreHealth) -> Finding:
    if found.encoding == "UTF8":
        return ok(CHECK, "its encoding holds every name")
    return problem(CHECK, f"its encoding is {found.encoding}: some names become digests", "move it to a UTF8 database")


def _rights(found: StoreHealth) -> Finding:
    if not found.missing_rights:
        return ok(CHECK, "this user may read and write")
    remedy = "grant them as docs/store.md lists, or give the URL of a user that writes"
    return warning(CHECK, f"this user lacks {', '.join(found.missing_rights)}", remedy)


def _lag(found: StoreHealth) -> Finding:
    if found.oldest_work is None or found.oldest_work > datetime.now(UTC) - _LAG:
        return ok(CHECK, "its summaries are up to date, or a day behind at most")
    hours = f"{found.hours_to_sum_up} hours since {found.oldest_work:%Y-%m-%d %H:%M} UTC"
    text = f"{hours} are not summed up: answers are slow"
    return warning(CHECK, text, "run taskpilot-obs aggregate from cron, or set store_aggregate_every_s")


def _partitions(found: StoreHealth) -> Finding:
    if not found.partition_gaps:
        return ok(CHECK, "no monthly partition is missing")
    remedy = (
        "run taskpilot-obs aggregate as the owner of the tables; where that does not end it, taskpilot-obs db partition"
    )
    return warning(CHECK, "; ".join(found.partition_gaps), remedy)


def _size(found: StoreHealth) -> Finding:
    text = f"it takes {found.size_bytes / 1e9:.2f} GB"
    if found.size_bytes < _LARGE_BYTES or found.has_retention:
        return ok(CHECK, text)
    return warning(CHECK, f"{text}, and nothing was ever deleted from it", "set store_retention_days")


def _clock(found: StoreHealth) -> Finding:
    if abs(found.clock_ahead) > _FAR:
        seconds = found.clock_ahead.total_seconds()
        return problem(CHECK, f"the clocks of this host and of the server are {seconds:.0f} s apart", "use NTP on both")
    if found.newest is not None and found.newest > datetime.now(UTC) + _FAR:
        text = f"its newest row is of {found.newest:%Y-%m-%d %H:%M} UTC: the clock of a writer is ahead"
        return problem(CHECK, text, "correct the clock; then taskpilot-obs db repair")
    return ok(CHECK, "its clock and this host's agree")


def _budgets(found: StoreHealth) -> Finding:
    if not found.contradictory_limits:
        return ok(CHECK, "no budget has two limits")
    told = "; ".join(f"{name!r} has {' and '.join(limits)}" for name, limits in found.contradictory_limits.items())
    remedy = "give each limit a name of its own, or scope it by service or environment"
    return problem(CHECK, f"running processes share what is spent under different limits: budget {told}", remedy)
