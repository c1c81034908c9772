"""Recorded exchanges with real providers: bodies and events, framed as they came over the wire."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "TASKPILOT_OBS_EXCHANGES"

Exchange = dict[str, Any]


def exchanges() -> list[Exchange]:
    """All of them; skips the test where there is no file."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} names no file of recorded exchanges")
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def events_of(exchange: Exchange) -> list[Any]:
    """What a client hands on: the decoded body, or the events of the stream; text if it is not JSON."""
    raw = exchange["response_body_b64"]
    body = base64.b64decode(raw) if raw else (exchange["response_body"] or "").encode("utf-8", "surrogatepass")
    mode = exchange["mode"]
    if mode == "eventstream":
        return list(_frames(body))
    text = body.decode("utf-8", "replace")
    if mode == "sse":
        lines = (line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:"))
        return [json.loads(line) for line in lines if line != "[DONE]"]
    if mode == "ndjson":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    try:
        decoded = json.loads(text)
    except ValueError:
        return [text]
    return decoded if mode == "jsonarray" else [decoded]


def _frames(body: bytes) -> Iterator[dict[str, Any]]:
    """AWS event stream: length, headers, payload; as boto3 names the events."""
    start = 0
    while start < len(body):
        length, header_length = struct.unpack(">II", body[start : start + 8])
        headers = _headers(body[start + 12 : start + 12 + header_length])
        payload = json.loads(body[start + 12 + header_length : start + length - 4])
        yield {headers[":event-type"]: payload}
        start += length


def _headers(raw: bytes) -> dict[str, str]:
    headers = {}
    at = 0
    while at < len(raw):
        name_end = at + 1 + raw[at]
        value_at = name_end + 3
        value_end = value_at + struct.unpack(">H", raw[name_end + 1 : value_at])[0]
        headers[raw[at + 1 : name_end].decode()] = raw[value_at:value_end].decode()
        at = value_end
    return headers
