"""Lines of the summaries: what one holds, and reading, putting and deleting some by their keys.

Values pass as the drivers take them, because SQLAlchemy would convert each while a lock is held.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from operator import sub
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs._telemetry.answers import Key
from taskpilot_obs._telemetry.counts import NO_CALLS, Counts
from taskpilot_obs._telemetry.money import MOST_NANO
from taskpilot_obs._telemetry.sketch import encode, subtract
from taskpilot_obs.store.rollups import FULL, SUMMARY_DIMENSIONS, Grain
from taskpilot_obs.store.tables import SUMMARIES, to_microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

Line = tuple[Any, ...]
"""The values of a line, in the order of `COLUMNS`."""

COLUMNS: Final = tuple(column.name for column in SUMMARIES.columns)
KEYS: Final = tuple(column.name for column in SUMMARIES.primary_key)
"""The first of the columns. Then come the fields of `Counts`, two sketches and the errors."""
_REQUESTS: Final = COLUMNS.index("requests")
_COST: Final = COLUMNS.index("cost_nano")
_NEW: Final = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEYS)
_PUT: Final = f"""
    INSERT INTO {SUMMARIES.name} ({", ".join(COLUMNS)}) VALUES ({{}})
    ON CONFLICT ({", ".join(KEYS)}) DO UPDATE SET {_NEW}
"""  # noqa: S608  nothing in it comes from outside
_TAKE: Final = f"DELETE FROM {SUMMARIES.name} WHERE {{}}"  # noqa: S608  as above
# `CROSS JOIN` has SQLite look up one key after the other, and is an ordinary join to PostgreSQL.
_READ: Final = f"""
    WITH asked ({", ".join(KEYS)}) AS (VALUES {{}})
    SELECT {", ".join(f"line.{name}" for name in COLUMNS)} FROM asked CROSS JOIN {SUMMARIES.name} AS line
    WHERE {" AND ".join(f"line.{name} = asked.{name}" for name in KEYS)}
"""  # noqa: S608  as above
_MOST_KEYS: Final = 500
"""In one statement: both engines limit the number of values."""


class Sums(NamedTuple):
    """What a line holds, beside its key."""

    counts: Counts
    latency: Counter[int]
    first_token: Counter[int]
    errors: Counter[str]


def joined(parts: Sequence[Sums]) -> Sums:
    """What some lines, one at least, hold together."""
    first, *others = parts
    if not others:
        return first
    counts, latency, first_token, errors = NO_CALLS, Counter[int](), Counter[int](), Counter[str]()
    for part in (first, *others):
        counts = counts.plus(part.counts)
        latency.update(part.latency)
        first_token.update(part.first_token)
        errors.update(part.errors)
    return Sums(counts, latency, first_token, errors)


def narrowed(full: dict[Key, Sums], rollup: Grain) -> dict[Key, Sums]:
    """What lines of the full roll-up are in a narrower one."""
    if rollup is FULL:
        return full
    positions = [FULL.dimensions.index(name) for name in rollup.dimensions]
    parts: defaultdict[Key, list[Sums]] = defaultdict(list)
    for key, sums in full.items():
        parts[tuple(key[position] for position in positions)].append(sums)
    return {key: joined(held) for key, held in parts.items()}


def keyed(
    connection: Connection, rollup: Grain, length: str, start: datetime, sums: dict[Key, Sums]
) -> dict[Line, Sums]:
    """The sums of one roll-up of an hour or a day, by the keys of their lines."""
    moment = start if connection.dialect.name == "postgresql" else to_microseconds(start)
    period, nothing = rollup.period(length), dict.fromkeys(SUMMARY_DIMENSIONS, "")
    places = [{**nothing, **dict(zip(rollup.dimensions, key, strict=True))} for key in sums]
    return {
        (period, moment, *(place[name] for name in KEYS[2:])): held
        for place, held in zip(places, sums.values(), strict=True)
    }


def line_of(key: Line, sums: Sums) -> Line:
    """The line that has this key and holds these sums."""
    counts, latency, first_token, errors = sums
    counts = counts._replace(cost_nano=min(counts.cost_nano, MOST_NANO))
    failed = json.dumps(errors, sort_keys=True) if errors else None
    return (*key, *counts, encode(latency), encode(first_token) or None, failed)


def without(line: Line, part: Sums) -> Line | None:
    """The line without a part of what it holds; None where it does not hold it, or its cost is at the limit."""
    *amounts, old_latency, old_first_token, old_errors = line[len(KEYS) :]
    *whole, total_ms = map(sub, amounts, part.counts)
    latency = subtract(old_latency, part.latency)
    first_token = subtract(old_first_token or b"", part.first_token)
    errors = _subtract_errors(old_errors, part.errors)
    if min(whole) < 0 or latency is None or first_token is None or errors is None or line[_COST] >= MOST_NANO:
        return None
    if not whole[0] and any((*whole, latency, first_token, errors)):
        return None
    # The total of durations is a sum of rounded numbers.
    return (*line[: len(KEYS)], *whole, max(total_ms, 0.0), latency, first_token or None, errors or None)


def _subtract_errors(held: str | None, part: Counter[str]) -> str | None:
    """As a line holds them, the empty text for none; None where it does not hold the part."""
    if not part:
        return held or ""
    errors = Counter(json.loads(held or "{}"))
    errors.subtract(part)
    if min(errors.values()) < 0:
        return None
    left = +errors
    return json.dumps(left, sort_keys=True) if left else ""


def is_empty(line: Line) -> bool:
    """Whether the line holds no call."""
    return not line[_REQUESTS]


def read(connection: Connection, keys: Sequence[Line]) -> dict[Line, Line]:
    """The lines that are there, by their keys."""
    found: dict[Line, Line] = {}
    key = f"({', '.join([_place(connection)] * len(KEYS))})"
    for first in range(0, len(keys), _MOST_KEYS):
        some = keys[first : first + _MOST_KEYS]
        values = tuple(value for each in some for value in each)
        for line in connection.exec_driver_sql(_READ.format(", ".join([key] * len(some))), values):
            found[tuple(line[: len(KEYS)])] = tuple(line)
    return found


def put(connection: Connection, lines: Sequence[Line]) -> None:
    """Put lines in the place of those that have their keys."""
    if lines:
        place = _place(connection)
        connection.exec_driver_sql(_PUT.format(", ".join([place] * len(COLUMNS))), list(lines))


def take(connection: Connection, keys: Sequence[Line]) -> None:
    """Delete the lines that have these keys."""
    if keys:
        place = _place(connection)
        connection.exec_driver_sql(_TAKE.format(" AND ".join(f"{name} = {place}" for name in KEYS)), list(keys))


def _place(connection: Connection) -> str:
    return "?" if connection.dialect.name == "sqlite" else "%s"
