"""OTLP/HTTP ingest: spans of agents in any language become rows of the store (extra `otlp`)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: TID251  the wire format, and no API
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue  # noqa: TID251  likewise
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status  # noqa: TID251  likewise

from taskpilot_obs.genai_spans import FinishedSpan
from taskpilot_obs.server.access import Writing
from taskpilot_obs.server.problems import PROBLEMS, Problem, ProblemRoute
from taskpilot_obs.server.trace_buffer import TraceBuffer

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""A batch of 512 spans, which SDKs send by default, is larger than other bodies may be."""
MAX_UNPACKED_BYTES: Final = 32 * 1024 * 1024
_CHUNK: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS


class _IngestRoute(ProblemRoute):
    max_body_bytes = MAX_BODY_BYTES


def otlp_routes(buffer: TraceBuffer) -> APIRouter:
    """Build `POST /v1/traces`, which passes spans to `buffer`."""
    routes = APIRouter(prefix="/v1", route_class=_IngestRoute, responses=PROBLEMS)

    @routes.post("/traces", include_in_schema=False)
    async def traces(http: Request, writer: Writing) -> Response:
        """Take a batch of spans as OTLP/HTTP sends it: protobuf or JSON, plain or gzip."""
        kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (PROTOBUF, JSON):
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {PROTOBUF} or {JSON}")
        if http.query_params:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "this route has no parameters")
        body, encoding = await http.body(), http.headers.get("content-encoding", "identity").lower()

        def take() -> None:
            buffer.add(writer.tenant, list(_spans(_parsed(_unpacked(body, encoding), kind))))

        await asyncio.to_thread(take)  # all of it, because a batch of many MiB takes seconds to parse
        return _accepted(kind)

    return routes


def _accepted(kind: str) -> Response:
    answer = ExportTraceServiceResponse()
    content = answer.SerializeToString() if kind == PROTOBUF else MessageToJson(answer).encode()
    return Response(content, media_type=kind)


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding: send gzip or none")
    unpacker = zlib.decompressobj(_GZIP)
    try:
        found = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is not gzip") from error
    if unpacker.unconsumed_tail:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if not unpacker.eof:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is not a whole gzip stream")
    return found


def _parsed(body: bytes, kind: str) -> Any:
    request = ExportTraceServiceRequest()
    try:
        if kind == PROTOBUF:
            request.ParseFromString(body)
        else:
            ParseDict(_with_base64_ids(body), request, ignore_unknown_fields=True)
    except (DecodeError, ParseError, ValueError, TypeError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is not an ExportTraceServiceRequest") from error
    return request


def _with_base64_ids(body: bytes) -> Any:
    """OTLP's JSON writes IDs in hexadecimal, where protobuf's own JSON has base64."""
    import json
    from base64 import b64encode

    def convert(given: dict[str, Any]) -> dict[str, Any]:
        for name in ("traceId", "spanId", "parentSpanId"):
            if isinstance(given.get(name), str):
                given[name] = b64encode(bytes.fromhex(given[name])).decode()
        return given

    return json.loads(body, object_hook=convert)


def _spans(request: Any) -> Iterator[FinishedSpan]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            name = scope.scope.name
            yield from (_span(span, name) for span in scope.spans if span.trace_id and span.span_id)


def _span(span: Span, scope: str) -> FinishedSpan:
    return FinishedSpan(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() or None,
        span.name,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        dict(map(_attribute, span.attributes)),
        span.status.code == Status.STATUS_CODE_ERROR,
        scope,
    )


def _attribute(pair: KeyValue) -> tuple[str, Any]:
    return pair.key, _value(pair.value)


def _value(value: AnyValue) -> Any:
    """Convert a scalar value; lists and maps become None, because no reader uses them."""
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in ("string_value", "bool_value", "int_value", "double_value") else None
