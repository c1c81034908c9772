"""What a run notes of its input and output: lengths, and where capture is on, redacted text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._recording.content import input_messages
from taskpilot_obs.records import NO_ATTRIBUTES, Attributes, AttributeValue
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.safety.redaction import Redactor


class Details:
    """What most runs have nothing of; made when the first of it is noted."""

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
        """What went in, in the form of OpenTelemetry; for the span."""
        self.output_stated = False
        """Whether the application stated what came out: that wins over what is observed."""

    def keep_input(self, value: object, redactor: Redactor, *, as_messages: bool) -> None:
        """Keep what went in, redacted; as messages too, where a span will show them."""
        self.input_text = redactor.value(value)
        self.input_messages = input_messages(value, redactor.text) if as_messages else None

    def input_attributes(self) -> dict[str, AttributeValue]:
        """What went in, for the span; nothing where content is not captured."""
        kept = {Attr.INPUT_TEXT: self.input_text, Attr.INPUT_MESSAGES: self.input_messages}
        return {key: text for key, text in kept.items() if text is not None}

    def keep_text(self, item: str, limit: int) -> None:
        """Keep a piece of a stream, up to a little more than will be shown, so that the redactor sees it whole."""
        kept = self.output_text or ""
        if len(kept) < limit and not self.output_stated:
            self.output_text = kept + item


NO_DETAILS = Details()


def text_length(args: tuple[object, ...], kwargs: Mapping[str, object]) -> int | None:
    """How many characters of text a function was called with; None where no argument is text.

    Only `str` itself counts, because a subclass may have a `__len__` of its own.
    """
    length = None
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) is str:
            length = len(value) if length is None else length + len(value)
    return length
