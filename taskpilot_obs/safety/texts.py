"""Collects the text for checks from arguments and results: lists, dicts, messages, models and objects."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

_MAX_DEPTH = 8
_MAX_TEXTS = 10_000
_MAX_ATTRIBUTES = 200
"""Maximum attributes of plain objects read per subject, because a client or an agent may refer to a whole program."""
_MAX_BYTES = 1_000_000
_TEXT_ATTRIBUTES = ("content", "text", "message", "choices")
"""Attributes in which messages and responses of providers and frameworks hold text."""
_FRAMING: Final = frozenset({"content", "messages", "role", "text", "type"})
"""Keys that mark a dict as a message and hold no content."""
_HOLDERS: Final = (types.SimpleNamespace, argparse.Namespace, collections.UserString)
"""Types of the standard library that hold application values; its other types are machinery."""


def texts_in(values: Sequence[object], *, keys: bool = True, machine: bool = False) -> list[str]:
    """The strings in arguments or a result: in lists, dicts, messages with a `content`, models and objects too.

    Args:
        values: the arguments, or a result alone.
        keys: whether the keys of dicts are text as well; not where pieces of one text are put together.
        machine: whether the first value is the working object (`self`), whose attributes are left out.
    """
    found: list[str] = []
    for place, value in enumerate(values):
        if type(value) is str:
            found.append(value)
        elif value is not None:
            attributes = 0 if machine and place == 0 else _MAX_ATTRIBUTES
            found.extend(_TextWalk(attributes, keys=keys).texts(value, 0))
        if len(found) > _MAX_TEXTS:
            break
    return found


class _TextWalk:
    """One walk through a value, bounded by depth, by visited objects and by the number of attributes."""

    __slots__ = ("_above", "_attributes", "_keys")

    def __init__(self, attributes: int, *, keys: bool) -> None:
        self._above: set[int] = set()
        self._attributes = attributes
        self._keys = keys

    def texts(self, value: object, depth: int) -> Iterator[str]:
        """The strings in a value."""
        if isinstance(value, str):
            yield value
        elif isinstance(value, bytes | bytearray | memoryview):
            yield bytes(value[:_MAX_BYTES]).decode("utf-8", "replace")
        elif value is None or depth >= _MAX_DEPTH or isinstance(value, int | float | type):
            return
        elif id(value) not in self._above:
            self._above.add(id(value))
            for each in self._parts(value):
                yield from self.texts(each, depth + 1)
            self._above.discard(id(value))

    def _parts(self, value: object) -> Iterator[object]:
        if isinstance(value, Mapping):
            for key, each in value.items():
                if self._keys and not (isinstance(key, str) and key in _FRAMING):
                    yield key
                yield each
        elif isinstance(value, list | tuple | set | frozenset):
            yield from value
        else:
            yield from self._held_by(value)

    def _held_by(self, value: object) -> Iterator[object]:
        """The values of an object: the content of a message, the fields of a model or dataclass, or its attributes."""
        stated = [getattr(value, name, None) for name in _TEXT_ATTRIBUTES]
        telling = [held for held in stated if held is not None and not callable(held)]
        if telling:
            yield from telling
        elif dataclasses.is_dataclass(value):
            yield from [getattr(value, field.name, None) for field in dataclasses.fields(value)]
        elif hasattr(type(value), "model_fields"):
            yield from list(vars(value).values())
        elif not callable(value) and not _is_machinery(value):
            for name in _public_names(value):
                if self._attributes == 0:
                    return
                self._attributes -= 1
                yield getattr(value, name, None)


def _is_machinery(value: object) -> bool:
    """Whether an object is the standard library's own: a logger, a lock, a path."""
    home = type(value).__module__.partition(".")[0]
    return home in sys.stdlib_module_names and not isinstance(value, _HOLDERS)


def _public_names(value: object) -> list[str]:
    """The attributes that an object itself has; those of a class with slots are named there."""
    own = getattr(value, "__dict__", None)
    names = list(own) if isinstance(own, dict) else []
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else slots
    return [name for name in names if isinstance(name, str) and not name.startswith("_")]
