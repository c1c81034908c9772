"""Opaque cursors: the end of a page, bound to the filters of its request."""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Final

from taskpilot_obs._support.timestamps import EPOCH, MICROSECOND
from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.stats import CallPosition

_LATEST_US: Final = 253_402_300_799_000_000
_DIGEST: Final = 12
LONGEST: Final = 1_000


def encode(position: CallPosition, filters: Mapping[str, object]) -> str:
    """The cursor of the page that begins after this call."""
    moment_us = (position.created_at - EPOCH) // MICROSECOND
    stated = json.dumps([moment_us, position.telemetry_id, _digest(filters)], ensure_ascii=False)
    return urlsafe_b64encode(stated.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def decode(cursor: str, filters: Mapping[str, object]) -> CallPosition:
    """Return the end of the previous page.

    Raises:
        ConfigurationError: the cursor is not from this server, or belongs to other filters.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment_us, telemetry_id, digest = json.loads(urlsafe_b64decode(padded.encode("ascii")))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise _refused() from error
    if type(moment_us) is not int or not 0 <= moment_us <= _LATEST_US or type(telemetry_id) is not str:
        raise _refused()
    if digest != _digest(filters):
        raise ConfigurationError("cursor: it belongs to other filters; begin without a cursor when a filter changes")
    return CallPosition(EPOCH + timedelta(microseconds=moment_us), stored_text(telemetry_id) or "")


def _refused() -> ConfigurationError:
    return ConfigurationError("cursor: not one that this server gave; take `next_cursor` of the page before as it is")


def _digest(filters: Mapping[str, object]) -> str:
    stated = sorted((name, str(value)) for name, value in filters.items() if value is not None)
    return sha256(json.dumps(stated).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
