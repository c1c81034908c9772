"""Read an audit log: its records over all segments and writers, in the order of their times."""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
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
    """Which records are wanted."""

    values: Mapping[str, str] = MappingProxyType({})
    """What fields have, by the name of the field."""
    since: datetime | None = None
    until: datetime | None = None


class Damage:
    """Counts the damaged lines that a reader meets and passes over; `verify` names the first of them."""

    lines = 0


def query(
    path: Path | str,
    wanted: Filter = Filter(),  # noqa: B008  a named tuple is immutable
    damage: Damage | None = None,
) -> Iterator[Entry]:
    """The records that match, by time; damaged lines are passed over.

    Args:
        path: the log's file, or a folder of logs.
        wanted: which records.
        damage: counts the damaged lines, once the last record is read. A line without what `wanted` asks for is only
            examined for its beginning and its end.

    Raises:
        AuditLogError: there is no log.
        OSError: a file cannot be read.
    """
    damage = damage or Damage()
    chains = [_matching(chain, wanted, damage) for log in find_logs(path) for chain in log.chains()]
    return heapq.merge(*chains, key=lambda record: record[Field.TIMESTAMP])


def tail(path: Path | str, count: int, damage: Damage | None = None) -> list[Entry]:
    """The last records, oldest first; reads only the newest files that hold them.

    Args:
        path: the log's file, or a folder of logs.
        count: how many records.
        damage: counts the damaged lines among the last ones.

    Raises:
        AuditLogError: there is no log.
        OSError: a file cannot be read.
    """
    damage = damage or Damage()
    ends = [_last_of(chain, count, damage) for log in find_logs(path) for chain in log.chains()]
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


def _matching(chain: Chain, wanted: Filter, damage: Damage) -> Iterator[Entry]:
    needles = [json.dumps(value).encode("ascii") for value in wanted.values.values()]
    since, until = _stamp(wanted.since), _stamp(wanted.until)
    for path in chain.files():
        with open_to_read(path) as file:
            for record in _parsed(_candidates(lines(file), needles, damage), damage):
                is_in_time = (since is None or record[Field.TIMESTAMP] >= since) and (
                    until is None or record[Field.TIMESTAMP] < until
                )
                if is_in_time and all(record.get(name) == value for name, value in wanted.values.items()):
                    yield record


def _stamp(moment: datetime | None) -> str | None:
    """In the form of the records' own times, which sort as text."""
    return None if moment is None else utc_text(moment)


def _candidates(found: Iterable[bytes], needles: list[bytes], damage: Damage) -> Iterator[bytes]:
    """The lines that hold every needle; another one is not parsed, because that takes most of the time."""
    for line in found:
        if all(needle in line for needle in needles):
            yield line
        elif not (line.startswith(b"{") and line.endswith(b"}\n")):
            damage.lines += 1


def _parsed(found: Iterable[bytes], damage: Damage) -> Iterator[Entry]:
    for line in found:
        record = parse_line(line, Decimal)
        if record is not None and isinstance(record.get(Field.TIMESTAMP), str):
            yield record
        else:
            damage.lines += 1


def _last_of(chain: Chain, count: int, damage: Damage) -> list[Entry]:
    newest: deque[Entry] = deque()
    for path in reversed(chain.files()):
        with open_to_read(path) as file:
            last = deque(lines(file), maxlen=count - len(newest))
            newest.extendleft(reversed(list(_parsed(last, damage))))
        if len(newest) >= count:
            break
    return list(newest)
