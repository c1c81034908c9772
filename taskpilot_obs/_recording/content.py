"""Captured content: arguments by parameter name, and messages in OpenTelemetry's format.

Used only while content capture is on; everything is redacted before it is kept.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from taskpilot_obs.safety.texts import texts_in

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_PROMPTS: Final = ("messages", "prompt", "prompts", "input", "contents", "question", "query", "text")
"""Names of arguments that hold a prompt; without any of these, all text of the arguments is the prompt."""
_ROLES: Final = {"human": "user", "ai": "assistant", "model": "assistant", "AIMessageChunk": "assistant"}
"""Frameworks' names of the convention's roles."""
_MAX_MESSAGES: Final = 100

Redact = Callable[[str], str]


class Parameters(NamedTuple):
    """The parameter names of a function."""

    names: tuple[str, ...] | None
    """Positional parameters in their order, without `self` or `cls`; None if the signature is unknown."""
    rest: str = "args"
    """The parameter that takes further positional arguments."""
    skips_first: bool = False
    """Whether the first argument is the object or class that the method belongs to."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Parameters:
        """Read the signature of a function."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # a built-in without a signature
            return UNKNOWN
        names = tuple(each.name for each in parameters if each.kind in _POSITIONAL)
        rest = next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), "args")
        # The first argument of an unbound built-in method (`str.upper`) is the object itself.
        skips_first = names[:1] in (("self",), ("cls",)) and inspect.isfunction(inspect.unwrap(function))
        return cls(names[skips_first:], rest, skips_first)

    def bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Map a call's arguments to parameter names, so that secrets are recognised by name."""
        if self.names is None:
            return {**({"args": list(args)} if args else {}), **kwargs}
        given = args[self.skips_first :]
        bound = dict(zip(self.names, given, strict=False))
        further = given[len(self.names) :]
        if further:
            bound[self.rest] = list(further)
        return {**bound, **kwargs}


UNKNOWN: Final = Parameters(None)


def text_of(item: object) -> str:
    """Return the text in one item of a stream, which policies check."""
    return item if isinstance(item, str) else "".join(texts_in((item,), keys=False))


def input_messages(value: object, redact: Redact) -> str | None:
    """Convert an input to `gen_ai.input.messages`; None if it contains no text.

    Args:
        value: messages, a prompt, or the arguments of a call by name.
        redact: makes each text fit to be kept.
    """
    return _as_json(_messages(_prompt_in(value), "user", redact))


def output_messages(value: object, redact: Redact, finish_reasons: Sequence[str] = ()) -> str | None:
    """Convert an output to `gen_ai.output.messages`; None if it contains no text.

    Args:
        value: a provider's response, a message, or text.
        redact: makes each text fit to be kept.
        finish_reasons: why generation stopped, one for each choice.
    """
    messages = _messages(_answers_in(value), "assistant", redact)
    for index, message in enumerate(messages):
        reason = finish_reasons[index] if index < len(finish_reasons) else "stop"
        message["finish_reason"] = reason
    return _as_json(messages)


def _as_json(messages: list[dict[str, object]]) -> str | None:
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":")) if messages else None


def _prompt_in(value: object) -> object:
    if not isinstance(value, Mapping) or "role" in value:
        return value
    return next((value[name] for name in _PROMPTS if value.get(name)), list(value.values()))


def _answers_in(value: object) -> object:
    """The messages of a response: its choices, candidates or content; else the value itself."""
    for name in ("choices", "candidates"):
        choices = _get(value, name)
        if isinstance(choices, list | tuple):
            return [_get(choice, "message") or _get(choice, "content") or _get(choice, "text") for choice in choices]
    return value


def _messages(value: object, role: str, redact: Redact) -> list[dict[str, object]]:
    items = value if isinstance(value, list | tuple) and not _is_parts(value) else (value,)
    found = (_message(item, role, redact) for item in items[:_MAX_MESSAGES])
    return [message for message in found if message is not None]


def _is_parts(value: Sequence[object]) -> bool:
    """Whether a list holds the parts of one message, that is items without roles."""
    return bool(value) and all(_role(item) is None and not isinstance(item, str) for item in value)


def _message(item: object, role: str, redact: Redact) -> dict[str, object] | None:
    content = _get(item, "content")
    if content is None:
        content = _get(item, "parts") or (item if _role(item) is None else None)
    parts = [*_calls(item, redact), *_text_parts(content, redact)]
    if not parts:
        return None
    stated = _role(item) or role
    return {"role": _ROLES.get(stated, stated), "parts": parts}


def _role(item: object) -> str | None:
    role = _get(item, "role")
    if role is None and not isinstance(item, Mapping) and _get(item, "content") is not None:
        role = _get(item, "type")  # LangChain's messages
    return role if isinstance(role, str) else None


def _text_parts(content: object, redact: Redact) -> Iterator[dict[str, object]]:
    for part in content if isinstance(content, list | tuple) else (content,):
        stated = part if isinstance(part, str) else _get(part, "text")
        text = stated if isinstance(stated, str) else "\n".join(texts_in((part,)))
        if text:
            yield {"type": "text", "content": redact(text)}


def _calls(item: object, redact: Redact) -> Iterator[dict[str, object]]:
    """The tool calls that a message requests, in the format of OpenAI or LangChain."""
    calls = _get(item, "tool_calls")
    for call in calls if isinstance(calls, list | tuple) else ():
        function = _get(call, "function") or call
        arguments = _get(function, "arguments") or _get(function, "args")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str, ensure_ascii=False)
        yield {
            "type": "tool_call",
            "id": str(_get(call, "id") or ""),
            "name": str(_get(function, "name") or ""),
            "arguments": redact(text),
        }


def _get(item: object, name: str) -> Any:
    if isinstance(item, Mapping):
        return item.get(name)
    return None if isinstance(item, str | bytes | list | tuple | int | float | None) else getattr(item, name, None)
