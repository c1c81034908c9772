"""Batches of rows in ClickHouse's format Native: column by column, as the server keeps them.

A column costs one pass in C over its values, where a row of text costs a conversion a value. A column without a value
is left out, and the server fills it with NULLs. A text that repeats is converted once; others are joined, and encoded
as one.
"""

from __future__ import annotations

from array import array
from itertools import chain, starmap
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, Boolean, Float, Integer, LargeBinary, SmallInteger

from taskpilot_obs._telemetry.money import PICO_PER_NANO
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store.tables import AGENT_RUNS, LLM_CALLS, UtcTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Column, Table

    from taskpilot_obs.store.rows import Row

Values = tuple[Any, ...]
"""A column of a batch. A cost is in pico-dollars."""
MONEY: Final = "Decimal(38, 12)"
MONEY_TABLES: Final = (LLM_CALLS, AGENT_RUNS)
"""Tables in which money is one column."""
_SEVEN_BITS: Final = 0x7F
_SHORT: Final = tuple(bytes((size,)) for size in range(_SEVEN_BITS + 1))
"""The lengths of most texts, written."""
_SHORT_ASCII: Final = tuple(map(chr, range(_SEVEN_BITS + 1)))
_OFTEN: Final = 4
"""How often a text must stand in a column, on average, so that converting each once pays."""


class ColumnType(NamedTuple):
    """How values of a type are written."""

    name: str
    """What the server takes them for; it converts them to the type of its column."""
    encode: Callable[[Iterable[Any]], bytes]
    nothing: Any
    """What stands in the place of NULL, beside a mark that it is one."""


def _numbers(code: str) -> Callable[[Iterable[Any]], bytes]:
    return lambda values: array(code, values).tobytes()


def _texts(values: Iterable[Any]) -> bytes:
    given = [*values]
    different = set(given)
    if len(different) * _OFTEN <= len(given):
        return _each_once(given, different)
    try:
        lengths = map(_SHORT_ASCII.__getitem__, map(len, given))
        joined = "".join(chain.from_iterable(zip(lengths, given, strict=True)))
    except (IndexError, TypeError):  # long texts; bytes, or what is refused below
        return _each_once(given, different)
    return joined.encode() if joined.isascii() else _each_once(given, different)


def _each_once(given: list[Any], different: set[Any]) -> bytes:
    """Texts of any kind; each is converted once, however often it stands there."""
    encoded = {value: _text(value) for value in different}
    return b"".join(map(encoded.__getitem__, given))


def _text(value: str | bytes) -> bytes:
    held = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    size = len(held)
    return (_SHORT[size] if size <= _SEVEN_BITS else _length(size)) + held


def _length(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first; each but the last is marked by the eighth bit."""
    groups = bytearray()
    while number > _SEVEN_BITS:
        groups.append(number & _SEVEN_BITS | _SEVEN_BITS + 1)
        number >>= 7
    return bytes((*groups, number))


def _amounts(values: Iterable[Any]) -> bytes:
    """Pico-dollars, in 128 bits; nearly always the lower 64 hold them."""
    given = [*values]
    try:
        return array("q", [half for amount in given for half in (amount, amount >> 63)]).tobytes()
    except OverflowError:
        return b"".join([amount.to_bytes(16, "little", signed=True) for amount in given])


_KINDS: Final = (
    (UtcTime, ColumnType("DateTime64(6, 'UTC')", _numbers("q"), 0)),
    (SmallInteger, ColumnType("Int16", _numbers("h"), 0)),
    (BigInteger, ColumnType("Int64", _numbers("q"), 0)),
    (Integer, ColumnType("Int64", _numbers("q"), 0)),
    (Boolean, ColumnType("Bool", bytes, 0)),
    (Float, ColumnType("Float64", _numbers("d"), 0.0)),
    (LargeBinary, ColumnType("String", _texts, b"")),
)
"""The more special type first."""
MOMENT: Final = ColumnType("DateTime64(3, 'UTC')", _numbers("q"), 0)
"""When a row was written, in milliseconds."""
_TEXT: Final = ColumnType("String", _texts, "")
_MONEY: Final = ColumnType(MONEY, _amounts, 0)


def _kind_of(column: Column[Any]) -> ColumnType:
    return next((kind for cls, kind in _KINDS if isinstance(column.type, cls)), _TEXT)


class Block(NamedTuple):
    """A batch as the server takes it."""

    columns: list[str]
    body: bytes


class Columns:
    """How the rows of a table are written, in which money is one column.

    Args:
        table: the one that the rows are written to.
        also: columns that its rows end with, which only ClickHouse has.
    """

    def __init__(self, table: Table, also: Iterable[tuple[str, ColumnType]] = ()) -> None:
        names = [column.name for column in table.columns]
        self._money = names.index("cost_nano") if table in MONEY_TABLES else None
        self._table = table.name
        self._kinds = [*((column.name, _kind_of(column)) for column in table.columns), *also]
        if self._money is not None:
            self._kinds[self._money : self._money + 2] = [("cost", _MONEY)]

    def block(self, rows: Sequence[Row], *ahead: Sequence[Any]) -> Block:
        """The rows, one at least, with the columns of which any row has a value.

        Args:
            rows: their values, in the order of the table's columns.
            ahead: the first columns of the table, where the rows lack them.

        Raises:
            StoreError: a value is of another type than its column, or too large for it: no second try makes it fit.
        """
        try:
            return self._block(rows, ahead)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise StoreError(f"a batch cannot be written to {self._table}: {type(error).__name__}") from error

    def _block(self, rows: Sequence[Row], ahead: Iterable[Sequence[Any]]) -> Block:
        given: list[Values] = [*map(tuple, ahead), *zip(*rows, strict=True)]
        if self._money is not None:
            given[self._money : self._money + 2] = [_money(*given[self._money : self._money + 2])]
        stated = [
            (name, kind, values)
            for (name, kind), values in zip(self._kinds, given, strict=True)
            if values.count(None) < len(rows)
        ]
        body = [_length(len(stated)), _length(len(rows)), *starmap(_column, stated)]
        return Block([name for name, _, _ in stated], b"".join(body))


def _money(nano: Values, rest: Values) -> Values:
    return tuple(
        [None if whole is None else whole * PICO_PER_NANO + (part or 0) for whole, part in zip(nano, rest, strict=True)]
    )


def _column(name: str, kind: ColumnType, values: Values) -> bytes:
    if None not in values:
        return _text(name) + _text(kind.name) + kind.encode(values)
    marks = bytes([value is None for value in values])
    nothing = kind.nothing
    filled = [nothing if value is None else value for value in values]
    return _text(name) + _text(f"Nullable({kind.name})") + marks + kind.encode(filled)
