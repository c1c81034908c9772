"""Finds denied words in any script: as whole words, or anywhere in scripts without spaces."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Severity, Stage, Verdict
from taskpilot_obs.safety.options import INPUT, NamedCheck, Stages, as_words
from taskpilot_obs.safety.subjects import ALLOW, CheckInput, PolicyResult

_WORDS = re.compile(r"\w+")
_INVISIBLE = dict.fromkeys(
    (
        *(0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x3164, 0xFEFF, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0x200B, 0x2010),  # zero-width spaces and joiners, marks of direction
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFE00, 0xFE10),  # variation selectors
        *range(0xE0000, 0xE0200),  # tags, more variation selectors
    )
)
"""Unicode's default-ignorable characters, which are invisible in the middle of a word."""
_FEW = 10
"""Up to this number of words, searching for each is faster than splitting the text."""
_DENIED_WORD = PolicyResult(Verdict.DENY, "contains a denied word")
_UNSPACED = (
    *("CJK", "IDEOGRAPHIC", "BOPOMOFO", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"),
    *("TAI LE", "TAI THAM", "NEW TAI LUE", "JAVANESE", "BALINESE"),
)
_MARKS_STAND = (range(0x0483, 0x1900), range(0x1900, 0x2000), range(0xA600, 0xAC00), range(0x10000, 0x12000))
"""Where Unicode keeps the vowel signs and other marks of scripts."""


def _spells(char: str) -> bool:
    """Whether a mark belongs to the spelling of its script (an Indic vowel sign), unlike one put over any letter."""
    return unicodedata.category(char).startswith("M") and not unicodedata.name(char, "").startswith("COMBINING")


@functools.cache
def _words_with_marks() -> re.Pattern[str]:
    """Words of scripts whose vowel signs are marks, which a plain regex takes for gaps; made when first needed."""
    marks = "".join(char for stretch in _MARKS_STAND for char in map(chr, stretch) if _spells(char))
    return re.compile(rf"[\w{re.escape(marks)}]+")


def fold(text: str) -> str:
    """Normalise text for comparison: fold compatibility forms and case, and drop invisible characters."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold()
    return folded.replace("i\u0307", "i")  # a capital I with a dot becomes an i, and the dot once more


def _is_unspaced(word: str) -> bool:
    """Whether the word is of a script that puts no spaces between words."""
    return any(unicodedata.name(char, "").startswith(_UNSPACED) for char in word)


class DenyWords(NamedCheck):
    """Denies text that contains one of these words, as a whole word and in any case: "undelete" is not "delete".

    Vowel signs and other marks of a script belong to its words. Between the words of a phrase ("drop table") any white
    space may stand. Words of scripts without spaces are found wherever they stand.

    Args:
        words: the denied words.
        name: of the policy; a metric label.
        severity: of a violation: low, medium, high or critical.
        stages: where it is asked: input, output or both.

    Raises:
        ConfigurationError: an option is not as described.
    """

    __slots__ = ("_phrases", "_spaced", "_words")

    def __init__(
        self,
        words: Iterable[str],
        *,
        name: str = "deny_words",
        severity: Severity | str = Severity.MEDIUM,
        stages: Stages | Stage | str = INPUT,
    ) -> None:
        super().__init__(name, severity, stages)
        folded = frozenset(" ".join(fold(word).split()) for word in as_words("words", words))
        if "" in folded:
            raise ConfigurationError("words: one of them consists of invisible characters only")
        single = frozenset(word for word in folded if _words_of(word) == [word] and not _is_unspaced(word))
        self._words = single if len(single) > _FEW else frozenset()
        self._phrases = tuple(sorted(folded - self._words))
        self._spaced = any(" " in phrase for phrase in self._phrases)

    def check(self, subject: CheckInput, /) -> PolicyResult:
        """Look for the words."""
        text = fold(subject.text)
        if self._spaced:
            text = " ".join(text.split())
        for phrase in self._phrases:
            if phrase in text and _stands_in(text, phrase):
                return _DENIED_WORD
        if self._words and not self._words.isdisjoint(_words_of(text)):
            return _DENIED_WORD
        return ALLOW


def _words_of(text: str) -> list[str]:
    return (_WORDS if text.isascii() else _words_with_marks()).findall(text)


def _stands_in(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text and not within a longer word."""
    at = text.find(phrase)
    while at >= 0:
        end = at + len(phrase)
        cut_left = at > 0 and _joins(text[at - 1], phrase[0])
        cut_right = end < len(text) and _joins(phrase[-1], text[end])
        if not (cut_left or cut_right):
            return True
        at = text.find(phrase, at + 1)
    return False


def _joins(left: str, right: str) -> bool:
    """Whether two neighbours belong to one word."""
    return _is_of_a_word(left) and _is_of_a_word(right) and not _is_unspaced(left + right)


def _is_of_a_word(char: str) -> bool:
    return char.isalnum() or char == "_" or (not char.isascii() and _spells(char))
