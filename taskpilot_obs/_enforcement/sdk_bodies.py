"""The body that a client of a Stainless SDK is about to send, however the application states it.

It may be a mapping, with `extra_body` above it, a model of pydantic, bytes, or hold iterators, which can be read once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_LEFT_OUT: Final = ("NotGiven", "Omit")
"""The SDKs' classes for values that are not sent."""
_DEEPEST: Final = 12


def read_body(options: Any) -> object:
    """Return the body of a request: a dict where it is JSON's object, else the body as it is.

    Iterators become lists in the options too, because the SDK sends what is left of them.

    Args:
        options: the SDK's description of a request (`json_data`, `extra_json`, `content`).
    """
    body, extra = options.json_data, options.extra_json
    if extra is not None and (body is None or isinstance(body, Mapping)):
        body = {**(body or {}), **extra}
    if body is None:
        body = _content_of(options)
    if isinstance(body, Mapping):
        return _plain_body(options, body)
    if isinstance(body, bytes | bytearray | str):
        return _parsed(body)
    dump = getattr(body, "model_dump", None)
    return dump(mode="json", by_alias=True, exclude_unset=True) if callable(dump) else body


def _plain_body(options: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without what is not sent, and without iterators, which are replaced in the options."""
    kept = {name: value for name, value in body.items() if type(value).__name__ not in _LEFT_OUT}
    plain = {name: _without_iterators(value, 0) for name, value in kept.items()}
    if any(plain[name] is not kept[name] for name in kept):
        options.json_data, options.extra_json = plain, None
    return plain


def _without_iterators(value: Any, depth: int) -> Any:
    """The value with a list in place of each iterator; the value itself where it holds none."""
    if isinstance(value, str) or depth > _DEEPEST:
        return value
    if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
        return [_without_iterators(each, depth + 1) for each in value]
    if isinstance(value, dict):
        found = {name: _without_iterators(each, depth + 1) for name, each in value.items()}
        return found if any(found[name] is not value[name] for name in value) else value
    if isinstance(value, list | tuple):
        listed = [_without_iterators(each, depth + 1) for each in value]
        return listed if any(new is not old for new, old in zip(listed, value, strict=True)) else value
    return value


def _content_of(options: Any) -> Any:
    """The content that is sent as it is; a file or an iterator is read, and replaced by what it held."""
    content = getattr(options, "content", None)  # which early versions of the SDKs lack
    if isinstance(content, io.IOBase):
        content = options.content = content.read()
    elif isinstance(content, Iterator):
        content = options.content = b"".join(content)
    return content


def _parsed(text: bytes | bytearray | str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
