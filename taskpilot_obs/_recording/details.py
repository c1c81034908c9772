"""What a run records of its input and output: lengths and, with content capture, redacted text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from taskpilot_obs._recording.content import input_messages
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.records import NO_ATTRIBUTES, Attributes, AttributeValue
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskpilot_obs.safety.redaction import Redactor


class ReleasedPieces(Protocol):
    """What a stream has handed out, until the checks are asked about it."""

    def note(self, piece: Any) -> None:
        """Keep a piece."""

    def settle(self) -> object:
        """Return the pieces: the caller asks about them."""

    def leave(self, run: Any) -> None:
        """Ask about the pieces of a run that is about to end."""

    async def leave_async(self, run: Any) -> None:
        """Like `leave`, awaiting asynchronous checks."""

    def bypass(self) -> None:
        """Count the checks that are not asked."""


class Details:
    """Optional details of a run, created when the first is recorded, because most runs have none."""

    __slots__ = (
        "attributes",
        "error_message",
        "error_type",
        "input_messages",
        "input_text",
        "on_failure",
        "output_stated",
        "output_text",
        "released",
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
        self.released: ReleasedPieces | None = None
        """What the run's stream has handed out, where a check is asked about outputs."""
        self.on_failure: tuple[Callable[[Any, BaseException], None], ...] = ()
        """Called with the run and the exception that ends it."""

    def keep_input(self, value: object, redactor: Redactor, *, as_messages: bool) -> None:
        """Keep the input, redacted, and as messages too if a span will show them."""
        self.input_text = redactor.value(value)
        self.input_messages = input_messages(value, redactor.text) if as_messages else None

    def check_released(self, run: Any) -> None:
        """Ask the checks about what a stream has handed out whose run is about to end early."""
        if self.released is not None:
            self.released.leave(run)

    def tell_failure(self, run: Any, error: BaseException) -> None:
        """Tell those who asked for it that an exception is about to end the run."""
        for tell in self.on_failure:
            with guarded("on_failure", run.callsite.runtime.counters):
                tell(run, error)

    def bypass_released(self) -> None:
        """Count the checks that are not asked about it, because its run goes in a finalizer."""
        if self.released is not None:
            self.released.bypass()

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
