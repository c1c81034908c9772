"""What a run records of its input and output: lengths and, with content capture, redacted text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._recording.content import input_messages
from taskpilot_obs.records import NO_ATTRIBUTES, Attributes, AttributeValue
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.safety.redaction import Redactor


class Details:
    """Optional details of a run, created when the first is recorded, because most runs have none."""

    __slots__ = (
        "attributes",
        "error_message",
        "error_type",
        "input_messages",
        "input_text",
        "output_stated",
        "output_text",
    )

    def __init__(self) -> None:
        self.attributes: Attributes = NO_ATTRIBUTES
        self.error_type: str | None = None
        self.error_message: str | None = None
        self.input_text: str | None = None
        self.output_text: str | None = None
        self.input_messages: str | None = None
        """The input in OpenTelemetry's format, for the span."""
        self.output_stated = False
        """Whether the application set the output, which takes precedence over the observed one."""

    def keep_input(self, value: object, redactor: Redactor, *, as_messages: bool) -> None:
        """Keep the input, redacted, and as messages too if a span will show them."""
        self.input_text = redactor.value(value)
        self.input_messages = input_messages(value, redactor.text) if as_messages else None

    def input_attributes(self) -> dict[str, AttributeValue]:
        """The input as span attributes; empty if content is not captured."""
        kept = {Attr.INPUT_TEXT: self.input_text, Attr.INPUT_MESSAGES: self.input_messages}
        return {key: text for key, text in kept.items() if text is not None}

    def keep_text(self, item: str, limit: int) -> None:
        """Keep a piece of a stream up to slightly more than is shown, so that the redactor sees whole secrets."""
        kept = self.output_text or ""
        if len(kept) < limit and not self.output_stated:
            self.output_text = kept + item


NO_DETAILS = Details()


def text_length(args: tuple[object, ...], kwargs: Mapping[str, object]) -> int | None:
    """Count the characters of text in a call's arguments; None if no argument is text.

    Only `str` itself counts, because a subclass may have a `__len__` of its own.
    """
    length = None
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) is str:
            length = len(value) if length is None else length + len(value)
    return length
