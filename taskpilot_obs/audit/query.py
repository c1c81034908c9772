"""Read an audit log: its records over all segments and writers, in the order of their times."""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from taskpilot_obs._support import durations
from taskpilot_obs._support.timestamps import utc_text
from taskpilot_obs.audit.access import open_to_read
from taskpilot_obs.audit.files import Chain, find_logs, lines
from taskpilot_obs.audit.manifest import parse_line
from taskpilot_obs.exceptions import AuditLogError
from taskpilot_obs.semconv import Field

Entry = dict[str, Any]
"""A record as it was parsed; numbers with a fraction are `Decimal`, so that money keeps its digits."""


class Filter(NamedTuple):
    """Which records are wanted: all of what is not None."""

    request_id: str | None = None
    agent: str | None = None
    status: str | None = None
    log_type: str | None = None
    event: str | None = None
    tenant_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def query(path: Path | str, wanted: Filter = Filter()) -> Iterator[Entry]:  # noqa: B008  a named tuple is immutable
    """The records that match, by time; other lines are passed over (`verify` names them).

    Raises:
        AuditLogError: there is no log.
        OSError: a file cannot be read.
    """
    chains = [_matching(chain, wanted) for log in find_logs(path) for chain in log.chains()]
    return heapq.merge(*chains, key=lambda record: record[Field.TIMESTAMP])


def tail(path: Path | str, count: int) -> list[Entry]:
    """The last records, oldest first; reads only the newest files that hold them.

    Raises:
        AuditLogError: there is no log.
        OSError: a file cannot be read.
    """
    ends = [_last_of(chain, count) for log in find_logs(path) for chain in log.chains()]
    return list(heapq.merge(*ends, key=lambda record: record[Field.TIMESTAMP]))[-count:]


def parse_duration(text: str) -> timedelta:
    """`90s`, `15m`, `1h30m`, `180d` or `2w`.

    Raises:
        AuditLogError: it is written otherwise.
    """
    try:
        return durations.parse_duration(text.strip())
    except ValueError as error:
        raise AuditLogError(f"duration: {error}") from None


def _matching(chain: Chain, wanted: Filter) -> Iterator[Entry]:
    exact = {name: value for name, value in wanted._asdict().items() if isinstance(value, str)}
    needles = [json.dumps(value).encode("ascii") for value in exact.values()]
    since, until = _stamp(wanted.since), _stamp(wanted.until)
    for path in chain.files():
        with open_to_read(path) as file:
            candidates = (line for line in lines(file) if all(needle in line for needle in needles))
            for record in _parsed(candidates):
                is_in_time = (since is None or record[Field.TIMESTAMP] >= since) and (
                    until is None or record[Field.TIMESTAMP] < until
                )
                if is_in_time and all(record.get(name) == value for name, value in exact.items()):
                    yield record


def _stamp(moment: datetime | None) -> str | None:
    """In the form of the records' own times, which sort as text."""
    return None if moment is None else utc_text(moment)


def _parsed(found: Iterable[bytes]) -> Iterator[Entry]:
    for line in found:
        record = parse_line(line, Decimal)
        if record is not None and isinstance(record.get(Field.TIMESTAMP), str):
            yield record


def _last_of(chain: Chain, count: int) -> list[Entry]:
    newest: deque[Entry] = deque()
    for path in reversed(chain.files()):
        with open_to_read(path) as file:
            newest.extendleft(reversed(list(_parsed(deque(lines(file), maxlen=count - len(newest))))))
        if len(newest) >= count:
            break
    return list(newest)
