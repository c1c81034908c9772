"""Three pretend providers on loopback, each with its provider's protocol, its speed, its price and its mistakes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Final, NamedTuple

from taskpilot_obs.compare.bench.tasks import BUILT_IN, load_task

_FIRST: Final = 0.4
"""Share of an answer's time before its first piece."""
_BYTES_PER_TOKEN: Final = 4
_WRONG: Final = "I cannot tell."


class Truth(NamedTuple):
    """What is built into one provider."""

    model: str
    protocol: str
    """`openai`, `anthropic` or `gemini`."""
    median_s: float
    """Of the latency, which is log-normal."""
    sigma: float
    correct: float
    """Share of its answers."""
    errors: float
    """Share of the calls that fail."""

    @property
    def spec(self) -> str:
        """How the command line names it, but for its address."""
        return f"{self.model}={self.protocol}/{self.model}"


TRUTHS: Final = (
    Truth("pretend-swift", "openai", 0.15, 0.5, 0.65, 0.0),
    Truth("pretend-steady", "anthropic", 0.30, 0.5, 0.90, 0.02),
    Truth("pretend-grand", "gemini", 0.60, 0.5, 0.98, 0.05),
)


class PretendProviders(ThreadingHTTPServer):
    """A local HTTP server that answers as the pretend providers do.

    Args:
        truths: how fast, dear and reliable each provider is.
        seed: of latencies, errors and mistakes.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, truths: Sequence[Truth] = TRUTHS, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _ProviderHandler)
        self._truths = {truth.model: truth for truth in truths}
        self._right = {item.prompt: item for name in BUILT_IN for item in load_task(name).items}
        self._chance = Random(seed)  # noqa: S311  a pretence, not a secret
        self._lock = threading.Lock()

    def specs(self) -> tuple[str, ...]:
        """The arms that ask these providers."""
        address = f"http://127.0.0.1:{self.server_port}"
        return tuple(
            f"{truth.spec}@{address}{'/v1' if truth.protocol == 'openai' else ''}" for truth in self._truths.values()
        )

    def reply(self, model: str, prompt: str) -> tuple[float, str | None]:
        """How long the answer takes, and its text; None for a failure.

        Args:
            model: whom was asked.
            prompt: what.
        """
        truth = self._truths[model]
        with self._lock:
            took = truth.median_s * self._chance.lognormvariate(0.0, truth.sigma)
            fails, is_right = self._chance.random() < truth.errors, self._chance.random() < truth.correct
        if fails:
            return took, None
        return took, self._answer(prompt) if is_right else _WRONG

    def _answer(self, prompt: str) -> str:
        found = next((item for asked, item in self._right.items() if prompt.endswith(asked)), None)
        if found is None or found.expected is None:
            return _WRONG
        return found.expected if found.checker != "steps" else _steps(json.loads(found.expected))


def _steps(wanted: list[list[str]]) -> str:
    return json.dumps([dict(zip(("action", "target", "value"), step, strict=False)) for step in wanted])


@contextmanager
def pretend_providers(truths: Sequence[Truth] = TRUTHS, seed: int = 0) -> Iterator[PretendProviders]:
    """Serve them on loopback for the block.

    Args:
        truths: what is built in.
        seed: of latencies, errors and mistakes.
    """
    server = PretendProviders(truths, seed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _ProviderHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: PretendProviders

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def handle(self) -> None:
        """Serve one connection; a client that goes is not an error."""
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        """Answer one call, in the protocol of its path."""
        came = time.perf_counter()
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        path = self.path.partition("?")[0]
        model, prompt = _asked(path, body)
        took, text = self.server.reply(model, prompt)
        if text is None:
            time.sleep(max(0.0, came + took - time.perf_counter()))
            self._fail()
            return
        usage = (-(-len(prompt) // _BYTES_PER_TOKEN), max(2, -(-len(text) // _BYTES_PER_TOKEN)))
        events = _EVENTS[_protocol(path)](model, _halves(text), usage)
        self._stream(events, came, took)

    def _fail(self) -> None:
        error = {
            "code": 429,
            "message": "a pretend refusal",
            "type": "rate_limit_error",
            "status": "RESOURCE_EXHAUSTED",
        }
        content = json.dumps({"error": error}).encode()
        self.send_response(429)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, events: Sequence[str], came: float, took: float) -> None:
        """Write the events over the time that the answer takes, the first ones at once."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        early, late = events[: len(events) // 2], events[len(events) // 2 :]
        for share, part in ((_FIRST, early), (1.0, late)):
            time.sleep(max(0.0, came + share * took - time.perf_counter()))
            content = "".join(part).encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.write(b"0\r\n\r\n")


def _protocol(path: str) -> str:
    return "gemini" if ":" in path else "anthropic" if path.endswith("/messages") else "openai"


def _asked(path: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """The model and the prompt of a request."""
    if _protocol(path) == "gemini":
        return path.rpartition("/")[2].partition(":")[0], body["contents"][0]["parts"][0]["text"]
    return body["model"], body["messages"][0]["content"]


def _halves(text: str) -> tuple[str, str]:
    middle = max(1, len(text) // 2)
    return text[:middle], text[middle:]


def _event(document: dict[str, Any]) -> str:
    named = f"event: {document['type']}\n" if "type" in document else ""
    return f"{named}data: {json.dumps(document)}\n\n"


def _openai(model: str, text: tuple[str, str], usage: tuple[int, int]) -> list[str]:
    base = {"id": "chatcmpl-pretend", "object": "chat.completion.chunk", "created": 1, "model": model}
    deltas: tuple[dict[str, str], ...] = (
        {"role": "assistant", "content": ""},
        {"content": text[0]},
        {"content": text[1]},
        {},
    )
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]} for delta in deltas
    ]
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return [*(_event({**base, **chunk}) for chunk in (*chunks, {"choices": [], "usage": counts})), "data: [DONE]\n\n"]


def _anthropic(model: str, text: tuple[str, str], usage: tuple[int, int]) -> list[str]:
    message: dict[str, Any] = {
        "id": "msg_pretend",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
    }
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": usage[0], "output_tokens": 1}}
    deltas: list[dict[str, Any]] = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}} for part in text
    ]
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    documents: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": usage[1]}},
        {"type": "message_stop"},
    ]
    return [*map(_event, documents)]


def _gemini(model: str, text: tuple[str, str], usage: tuple[int, int]) -> list[str]:
    counts = {"promptTokenCount": usage[0], "candidatesTokenCount": usage[1], "totalTokenCount": sum(usage)}
    parts: list[dict[str, Any]] = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": part}]}, "index": 0}], "modelVersion": model}
        for part in text
    ]
    parts[1]["candidates"][0]["finishReason"] = "STOP"
    return [*map(_event, (parts[0], {**parts[1], "usageMetadata": counts}))]


_EVENTS: Final = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini}
