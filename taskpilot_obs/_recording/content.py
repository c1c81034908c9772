"""What a run notes of its input and output: lengths, and where capture is on, redacted text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs.records import NO_ATTRIBUTES, Attributes

if TYPE_CHECKING:
    from collections.abc import Mapping


class Details:
    """What most runs have nothing of; made when the first of it is noted."""

    __slots__ = ("attributes", "error_message", "error_type", "input_text", "output_text")

    def __init__(self) -> None:
        self.attributes: Attributes = NO_ATTRIBUTES
        self.error_type: str | None = None
        self.error_message: str | None = None
        self.input_text: str | None = None
        self.output_text: str | None = None

    def keep_text(self, item: str, limit: int) -> None:
        """Keep a piece of a stream, up to a little more than will be shown, so that the redactor sees it whole."""
        kept = self.output_text or ""
        if len(kept) < limit:
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
