"""Why an LLM call failed: the SDKs' own exceptions, statuses and error bodies."""

from __future__ import annotations

import asyncio
import io
import socket
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google.genai import errors as google_errors
from langchain_core.exceptions import OutputParserException

from taskpilot_obs.providers.errors import error_category
from taskpilot_obs.semconv import ERROR_CATEGORIES

REQUEST: Any = httpx.Request("POST", "http://127.0.0.1/v1")


def answer(status: int, body: object = None) -> Any:
    return httpx.Response(status, request=REQUEST, json=body or {})


def openai_error(status: int, **error: Any) -> openai.APIStatusError:
    """The exception that OpenAI's SDK makes of an answer."""
    client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1")
    return client._make_status_error_from_response(answer(status, {"error": {"message": "m", **error}}))


def anthropic_error(status: int, kind: str, message: str = "m") -> anthropic.APIStatusError:
    client = anthropic.Anthropic(api_key="x", base_url="http://127.0.0.1")
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return client._make_status_error_from_response(answer(status, body))


def google_error(status: int, name: str, message: str = "m") -> google_errors.APIError:
    kind = google_errors.ClientError if status < 500 else google_errors.ServerError
    return kind(status, {"error": {"code": status, "message": message, "status": name}})


def named(name: str, *bases: type[BaseException], **attributes: Any) -> BaseException:
    """An exception of an SDK that is not installed here."""
    error: BaseException = type(name, bases or (Exception,), {})("m")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def boto_error(status: int, code: str, message: str = "m") -> BaseException:
    """AWS' client makes one class for each code, below ClientError, and keeps the answer as a dict."""
    client_error = type("ClientError", (Exception,), {})
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return named(code, client_error, response=response)


CASES = [
    (openai_error(429, code="rate_limit_exceeded"), "rate_limit"),
    (openai_error(429, code="insufficient_quota", type="insufficient_quota"), "rate_limit"),
    (openai_error(401, code="invalid_api_key"), "auth"),
    (openai_error(403), "auth"),
    (openai_error(404, code="model_not_found"), "bad_request"),
    (openai_error(400, code="context_length_exceeded"), "context_length"),
    (openai_error(400, message="This model's maximum context length is 8192 tokens."), "context_length"),
    (openai_error(400, code="content_filter", message="The response was filtered"), "content_filter"),
    (openai_error(400, code="content_policy_violation"), "content_filter"),
    (openai_error(422), "bad_request"),
    (openai_error(500), "server"),
    (openai_error(503), "server"),
    (openai.APITimeoutError(REQUEST), "timeout"),
    (openai.APIConnectionError(request=REQUEST), "connection"),
    (openai.ContentFilterFinishReasonError(), "content_filter"),
    (anthropic_error(529, "overloaded_error"), "rate_limit"),
    (anthropic_error(429, "rate_limit_error"), "rate_limit"),
    (anthropic_error(401, "authentication_error"), "auth"),
    (anthropic_error(413, "request_too_large"), "context_length"),
    (
        anthropic_error(400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
        "context_length",
    ),
    (anthropic_error(400, "invalid_request_error", "Your credit balance is too low"), "rate_limit"),
    (anthropic_error(403, "billing_error"), "rate_limit"),
    (openai_error(402, message="Insufficient Balance"), "rate_limit"),  # DeepSeek
    (openai_error(400, code="invalid_prompt", message="flagged as violating our usage policy"), "content_filter"),
    (openai_error(403, message="Input was flagged by moderation"), "content_filter"),  # OpenRouter
    (openai_error(400, type="budget_exceeded", message="Budget has been exceeded!"), "rate_limit"),  # LiteLLM
    (openai_error(422, message="`inputs` tokens + `max_new_tokens` must be <= 4097"), "context_length"),  # TGI
    (
        openai.OpenAI(api_key="x", base_url="http://127.0.0.1")._make_status_error_from_response(
            answer(400, {"code": "invalid argument", "error": "Incorrect API key provided: x."})
        ),
        "auth",
    ),  # xAI
    (anthropic_error(400, "invalid_request_error", "Output blocked by content filtering policy"), "content_filter"),
    (
        anthropic_error(400, "invalid_request_error", "input length and `max_tokens` exceed context limit"),
        "context_length",
    ),
    (openai_error(403, message="Your team doesn't have any credits yet"), "rate_limit"),  # xAI
    (openai_error(403, code="exceeded_current_quota_error"), "rate_limit"),  # Moonshot
    (openai_error(400, code="Arrearage"), "rate_limit"),  # Alibaba
    (openai_error(400, code="billing_hard_limit_reached"), "rate_limit"),
    (openai_error(401, message="Insufficient balance"), "rate_limit"),
    (ValueError({"message": "Rate limit exceeded", "code": 429}), "rate_limit"),  # LangChain, of a body with status 200
    (ValueError({"message": "Provider returned error", "code": 502}), "server"),
    (ValueError({"message": "m", "type": "overloaded_error"}), "rate_limit"),
    (ValueError({"error": {"message": "m", "code": "invalid_api_key"}}), "auth"),
    (ValueError({"row": 7}), "other"),
    (anthropic_error(500, "api_error"), "server"),
    (google_error(429, "RESOURCE_EXHAUSTED"), "rate_limit"),
    (google_error(400, "INVALID_ARGUMENT"), "bad_request"),
    (google_error(400, "INVALID_ARGUMENT", "The input token count (1048577) exceeds the maximum"), "context_length"),
    (google_error(403, "PERMISSION_DENIED"), "auth"),
    (google_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), "auth"),
    (google_error(504, "DEADLINE_EXCEEDED"), "timeout"),
    (google_error(503, "UNAVAILABLE"), "server"),
    (named("ResourceExhausted", code=429), "rate_limit"),
    (named("DeadlineExceeded"), "timeout"),
    (named("BlockedPromptException"), "content_filter"),
    (boto_error(400, "ThrottlingException"), "rate_limit"),
    (boto_error(429, "ThrottlingException"), "rate_limit"),
    (boto_error(429, "ThrottlingException", "Too many tokens, please wait before trying again."), "rate_limit"),
    (boto_error(424, "modelStreamErrorException"), "server"),
    (named("EventStreamError", response={"Error": {"Code": "modelStreamErrorException"}}), "server"),
    (boto_error(403, "AccessDeniedException"), "auth"),
    (boto_error(400, "ValidationException"), "bad_request"),
    (boto_error(408, "ModelTimeoutException"), "timeout"),
    (boto_error(424, "ModelErrorException"), "server"),
    (named("NoCredentialsError"), "auth"),
    (named("EndpointConnectionError"), "connection"),
    (httpx.ReadTimeout("x"), "timeout"),
    (httpx.ConnectTimeout("x"), "timeout"),
    (httpx.ConnectError("x"), "connection"),
    (httpx.RemoteProtocolError("x"), "connection"),
    (httpx.HTTPStatusError("x", request=REQUEST, response=answer(502)), "server"),
    (httpx.HTTPStatusError("x", request=REQUEST, response=answer(418)), "bad_request"),
    (ConnectionResetError(), "connection"),
    (BrokenPipeError(), "connection"),
    (socket.gaierror(), "connection"),
    (TimeoutError(), "timeout"),
    (named("ContextOverflowError", openai.OpenAIError), "context_length"),
    (named("LengthFinishReasonError"), "context_length"),
    (OutputParserException("quota exceeded, says the model"), "other"),
    (ValueError("timeout while talking to a colleague"), "other"),
    (KeyError("rate_limit"), "other"),
    (FileNotFoundError("x"), "other"),
    (ModuleNotFoundError("x"), "other"),
    (io.UnsupportedOperation("x"), "other"),
    (Exception(), "other"),
    (asyncio.CancelledError(), "other"),
    (KeyboardInterrupt(), "other"),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=lambda value: f"{value!r:.60}")
def test_categories(error: BaseException, expected: str) -> None:
    """Each SDK's way to say what went wrong comes to one word; an exception of the application to `other`."""
    assert error_category(error) == expected
    assert expected in ERROR_CATEGORIES


class HostileError(Exception):
    """Raises when it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError


class StrangeTimeoutError(HostileError):
    """A subclass with a name that would identify it."""


def test_a_hostile_exception_is_other() -> None:
    """An exception whose attributes raise does not raise here."""
    assert error_category(HostileError()) == "other"
    assert error_category(StrangeTimeoutError()) in ERROR_CATEGORIES


def test_strange_attributes_say_nothing() -> None:
    """Invalid statuses, codes other than text and bodies other than mappings are ignored."""
    assert error_category(named("RateLimitError", status_code=True, code=[], body="x", response=3)) == "rate_limit"
    assert error_category(named("X", status_code=99, status=7_000)) == "other"
    assert error_category(named("X", status_code=200)) == "other"
