"""A model provider on loopback that speaks OpenAI's and Anthropic's protocols, for the real clients and frameworks.

Each answer took 100 input tokens (40 of them cached) and 20 output tokens (8 of them reasoning, at OpenAI). The first
turn with tools calls the first tool; the turn behind a tool's result answers in text. Words in the messages: `FAIL`
answers 500, `ONCE` 500 and `RATE` 429 at the first time, `SLOW` takes a quarter of a second, or that long between
pieces of a stream, `HANG` waits until `release` is called, `HALT` waits for it before the last word of a stream, `CUT`
breaks the connection there, and `NOID` answers with an empty ID.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

PAUSE_S = 0.25
PATIENCE_S = 60.0
TEXT = ["It ", "is ", "sunny."]
SNAPSHOTS = {"gpt-4o-mini": "2024-07-18", "gpt-4.1-mini": "2025-04-14"}
"""What an answer's model has behind the name that was asked for."""
ARGUMENTS = '{"city": "Paris"}'
_numbers = itertools.count(1)


class Provider(ThreadingHTTPServer):
    """The server; `calls` are the paths that were asked for."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[str] = []
        self.limited: set[str] = set()
        self.hanging: list[str] = []
        """What was asked by the requests that wait."""
        self._released = threading.Event()

    @property
    def url(self) -> str:
        """Its base URL; OpenAI's clients want `/v1` behind it."""
        return f"http://127.0.0.1:{self.server_port}"

    def hang(self, asked: str) -> None:
        """Wait for `release`."""
        released = self._released
        self.hanging.append(asked)
        released.wait(PATIENCE_S)

    def release(self) -> None:
        """Let those go on that wait."""
        self._released.set()
        self._released, self.hanging = threading.Event(), []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes is part of the tests."""


@contextmanager
def serving() -> Iterator[Provider]:
    """A provider that runs for the block."""
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider
    _without_id = False

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        path = self.path.partition("?")[0]
        self.server.calls.append(path)
        asked = json.dumps(body.get("messages") or body.get("input") or body.get("contents") or "")
        boom = {"error": {"message": "boom", "type": "server_error"}}
        if "FAIL" in asked:
            self._answer(boom, 500)
            return
        if ("RATE" in asked or "ONCE" in asked) and asked not in self.server.limited:
            self.server.limited.add(asked)
            limit = {"error": {"message": "slow down", "type": "rate_limit_error"}}
            self._answer(*(limit, 429) if "RATE" in asked else (boom, 500))
            return
        if "HANG" in asked:
            self.server.hang(asked)
        self._without_id = "NOID" in asked
        slow = "SLOW" in asked
        if slow and not body.get("stream"):
            time.sleep(PAUSE_S)
        answers = {"/v1/chat/completions": chat, "/v1/responses": responses, "/v1/messages": messages}
        answers["/v1/embeddings"] = embeddings
        if ":" in path:
            self._gemini(path, body, slow)
            return
        answer = answers[path](body, had_tool(asked))
        if body.get("stream"):
            self._stream(answer, slow, done=path.endswith("completions"), asked=asked)
        else:
            self._answer(answer[-1])

    def _gemini(self, path: str, body: dict[str, Any], slow: bool) -> None:
        answer = gemini(path, body)
        if slow and ":stream" not in path:
            time.sleep(PAUSE_S)
        if ":stream" in path:
            said = "text" in answer.get("candidates", [{}])[0].get("content", {}).get("parts", [{}])[0]
            asked = json.dumps(body["contents"])
            self._stream([answer] * (3 if said else 2), slow, done=False, asked=asked)  # the last is left out
        else:
            self._answer(answer)

    def _answer(self, document: dict[str, Any], code: int = 200) -> None:
        content = json.dumps(without_id(document) if self._without_id else document).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("retry-after-ms", "1")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, answer: list[dict[str, Any]], slow: bool, *, done: bool, asked: str) -> None:
        cut, halting = "CUT" in asked, "HALT" in asked
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        if cut:
            self.send_header("content-length", "1000000")  # a body that ends before is an error
        self.end_headers()
        for number, stated in enumerate(answer[: _last_word(answer) if cut else -1]):
            if halting and number == _last_word(answer):
                self.server.hang("HALT")
            event = without_id(stated) if self._without_id else stated
            kind = f"event: {event['type']}\n" if "type" in event else ""
            self.wfile.write(f"{kind}data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            if slow:
                time.sleep(PAUSE_S)
        if done and not cut:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def _last_word(answer: list[dict[str, Any]]) -> int:
    """The event of a stream that brings the last word; where each brings all of them, the last event."""
    said = [json.dumps(event) for event in answer[:-1]]
    found = [number for number, event in enumerate(said) if TEXT[-1] in event]
    words = [number for number in found if "".join(TEXT) not in said[number]]
    return (words or found)[-1]


def without_id(document: dict[str, Any]) -> dict[str, Any]:
    """An answer, or a piece of one, whose ID is empty, as that of some servers."""
    inner = {key: without_id(held) for key, held in document.items() if key in ("message", "response") and held}
    return {**document, **inner, **{key: "" for key in ("id", "responseId") if key in document}}


def snapshot(model: str) -> str:
    """The name of the model that answers."""
    return f"{model}-{SNAPSHOTS.get(model, '2024-07-18')}"


def had_tool(asked: str) -> bool:
    """Whether a tool has answered already."""
    return any(mark in asked for mark in ('"role": "tool"', "function_call_output", "tool_result"))


def first_tool(body: dict[str, Any], had: bool) -> str | None:
    """The tool to call, None where the answer is a text."""
    if had or not body.get("tools"):
        return None
    tool = body["tools"][0]
    return str(tool.get("name") or tool["function"]["name"])


def chat(body: dict[str, Any], had: bool) -> list[dict[str, Any]]:
    """OpenAI's chat completions: the events of a stream, and the whole answer."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    base = {"id": f"chatcmpl-{next(_numbers)}", "created": 1, "model": snapshot(body["model"])}
    tool = first_tool(body, had)
    call = {"id": "call_1", "type": "function", "function": {"name": tool, "arguments": ARGUMENTS}}
    pieces: list[dict[str, Any]] = [{"tool_calls": [{**call, "index": 0}]}] if tool else [{"content": w} for w in TEXT]
    deltas = [{"role": "assistant", "content": ""}, *pieces, {}]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]} for delta in deltas
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({"choices": [], "usage": usage})
    said = {"content": None, "tool_calls": [call]} if tool else {"content": "".join(TEXT)}
    reason = "tool_calls" if tool else "stop"
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": reason, "logprobs": None}
    whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
    return [*({**base, "object": "chat.completion.chunk", **chunk} for chunk in chunks), whole]


def responses(body: dict[str, Any], had: bool) -> list[dict[str, Any]]:
    """OpenAI's responses."""
    tool = first_tool(body, had)
    text = {"type": "output_text", "text": "".join(TEXT), "annotations": []}
    out: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant", "content": [text]}
    if tool:
        out = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": tool, "arguments": ARGUMENTS}
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 120,
    }
    base: dict[str, Any] = {
        "id": f"resp_{next(_numbers)}",
        "object": "response",
        "created_at": 1.0,
        "tools": [],
        "tool_choice": "auto",
    }
    base |= {"model": snapshot(body["model"]), "parallel_tool_calls": True, "error": None}
    whole: dict[str, Any] = {**base, "status": "completed", "output": [{**out, "status": "completed"}], "usage": usage}
    begun = {**base, "status": "in_progress", "output": []}
    place: dict[str, Any] = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    coming: dict[str, Any] = {**out, "status": "in_progress", **({} if tool else {"content": []})}
    part: dict[str, Any] = {"type": "response.content_part.added", "part": {**text, "text": ""}, **place}
    words = [{"type": "response.output_text.delta", "delta": word, "logprobs": [], **place} for word in TEXT]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": coming},
        *([] if tool else [part, *words]),
        {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]},
        {"type": "response.completed", "response": whole},
    ]
    return [*({**event, "sequence_number": number} for number, event in enumerate(events)), whole]


def gemini(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Gemini's content, whole or as each piece of a stream; and embeddings, without usage."""
    if "mbed" in path:
        return {"embeddings": [{"values": [0.1, 0.2]}]}
    usage = {"promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 12}
    declared = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations") or ()]
    part: dict[str, Any] = {"text": "".join(TEXT)}
    if declared and "functionResponse" not in json.dumps(body["contents"]):
        asked = "city" if '"city"' in json.dumps(declared[0]) else "request"  # of an agent as a tool
        part = {"functionCall": {"name": declared[0]["name"], "args": {asked: "Paris"}}}
    said = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    return {
        "candidates": [said],
        "modelVersion": path.rpartition("/")[2].partition(":")[0],
        "responseId": f"r-{next(_numbers)}",
        "usageMetadata": {**usage, "thoughtsTokenCount": 8, "totalTokenCount": 120},
    }


def embeddings(body: dict[str, Any], had: bool) -> list[dict[str, Any]]:
    """OpenAI's embeddings: 7 tokens."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return [{"object": "list", "model": body["model"], "data": data, "usage": usage}]


def messages(body: dict[str, Any], had: bool) -> list[dict[str, Any]]:
    """Anthropic's messages, without reasoning."""
    tool = first_tool(body, had)
    block: dict[str, Any] = {"type": "text", "text": "".join(TEXT)}
    if tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": json.loads(ARGUMENTS)}
    deltas = [{"type": "text_delta", "text": word} for word in TEXT]
    if tool:
        deltas = [{"type": "input_json_delta", "partial_json": ARGUMENTS}]
    usage = {"input_tokens": 60, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0, "output_tokens": 20}
    whole = {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [block],
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {**block, **({"input": {}} if tool else {"text": ""})},
        },
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": 20},
        },
        {"type": "message_stop"},
    ]
    return [*events, whole]


def answering(usage: Any) -> httpx2.AsyncClient:
    """A client for SDKs whose server answers "It is sunny." with such a usage, whole or streamed; None for none."""
    base = {"id": "c-1", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    stated = {} if usage is None else {"usage": usage}
    said = {"role": "assistant", "content": "It is sunny."}

    def answer(request: httpx2.Request) -> httpx2.Response:
        if not json.loads(request.content).get("stream"):
            choice = {"index": 0, "message": said, "finish_reason": "stop"}
            return httpx2.Response(200, json={**base, **stated, "object": "chat.completion", "choices": [choice]})
        chunk = {**base, "object": "chat.completion.chunk"}
        first = {**chunk, "choices": [{"index": 0, "delta": said, "finish_reason": None}]}
        last = {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        events = [first, last, *([{**chunk, "choices": [], **stated}] if stated else [])]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=body)

    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
