"""Finds personal and payment data: e-mail addresses, payment cards, bank accounts.

Numbers count only with a valid checksum, so that order numbers, UUIDs and trace IDs are kept. Linear in the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.source import SearchedText, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

EMAIL: Final = "email"
CARD: Final = "card"
IBAN: Final = "iban"

_LOCAL_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.%+-'#!$&*^~"
_LOCAL_REVERSED = re.compile(r"[\w.%+\-'#!$&*^~]++")
_HOST = re.compile(r"@(?:[\w-]++\.)+[^\W\d_][\w-]++(?!\.[\w-])")
_MAX_LOCAL = 320
"""Characters looked at before an `@`; RFC 5321 allows 64."""
_IMAGE_AT_SCALE = re.compile(r"@[0-9](?:\.[0-9])?x\.(?:png|jpe?g|gif|webp|svg|avif|heic|bmp|tiff?)", re.IGNORECASE)


def emails(source: SearchedText) -> Iterator[Span]:
    """E-mail addresses, international ones too; not `image@2x.png`, nor `git@…`, which names a service."""
    text = source.text
    if "@" not in text:
        return
    is_plain = text.isascii()
    done = 0
    for host in _HOST.finditer(text):
        at = host.start()
        before = text[at - _MAX_LOCAL if at - done > _MAX_LOCAL else done : at]
        start = at - len(before) + len(before.rstrip(_LOCAL_CHARS))
        if (not is_plain and text[start - 1] > "\x7f") or text[start] == "'":
            start = at - _local_length(before)
        if start == at or text[start:at] == "git":
            continue
        if text[at + 1].isdigit() and _IMAGE_AT_SCALE.fullmatch(host[0]):
            continue
        done = host.end()
        yield start, done, EMAIL


def _local_length(before: str) -> int:
    """How long the part before the `@` is, where letters beyond ASCII or a quote may stand in its way."""
    local = _LOCAL_REVERSED.match(before[::-1])
    return len(before[len(before) - len(local[0]) :].lstrip("'")) if local is not None else 0


_GAPS = r" .\u00a0-"
_GROUPED = re.compile(
    rf"(?<![0-9])[0-9]{{4}}[{_GAPS}]"
    rf"(?:[0-9]{{4}}[{_GAPS}][0-9]{{4}}(?:[{_GAPS}][0-9]{{1,7}})?|[0-9]{{6}}[{_GAPS}][0-9]{{4,5}})(?![0-9])"
)
_TWELVE = b"d" * 12
_GROUPS = (b"dddd dddd dddd", b"dddd dddddd dddd")
"""Shapes that a card begins with."""
_GROUP = 5
"""Characters of a group with its gap."""
_OTHER = ord(" ")
_ISSUED = re.compile(
    rb"(?<![0-9])(?:4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    rb"|(?:5[1-5]|2[2-7])[0-9]{14}"  # Mastercard
    rb"|3[47][0-9]{13}"  # American Express
    rb"|3[0689][0-9]{12}(?:[0-9]{2})?(?:[0-9]{3})?"  # Diners Club
    rb"|35[0-9]{14,17}"  # JCB
    rb"|6[0-9]{11,18}|5[0678][0-9]{11,17})(?![0-9])"  # Discover, UnionPay, RuPay, Maestro
)
_VALUE = bytes(byte % 48 for byte in range(256))
_VALUE_DOUBLED = bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[byte % 48] if 48 <= byte <= 57 else 0 for byte in range(256))  # noqa: PLR2004  ASCII digits
_HEX = frozenset("0123456789abcdefABCDEF")
_LONGEST_HEX = 64
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_UUID_LENGTH = 36


def cards(source: SearchedText) -> Iterator[Span]:
    """Numbers of payment cards, in one piece or in the groups in which they are printed."""
    plain, shape = source.ascii, source.shape
    at = shape.find(_TWELVE) if shape.rfind(_TWELVE) >= 0 else -1
    while at >= 0:
        card = _ISSUED.match(plain, at)
        if card is not None and _is_right(card[0]) and not _in_longer(source, at, card.end()):
            yield at, card.end(), CARD
        at = shape.find(_TWELVE, at + len(_TWELVE))
    for beginning in _GROUPS:
        if shape.rfind(beginning) >= 0:
            yield from _grouped_cards(source, beginning)


def _grouped_cards(source: SearchedText, beginning: bytes) -> Iterator[Span]:
    shape = source.shape
    at = shape.find(beginning)
    while at >= 0:
        card = _GROUPED.match(source.text, at)
        if card is not None:
            end = card.end()
            if is_card(source.ascii[at:end].translate(None, b" .-?")) and not _in_longer(source, at, end):
                yield at, end, CARD
        at = shape.find(beginning, at + _GROUP)


def is_card(digits: bytes) -> bool:
    """Whether an issuer assigns such numbers and the checksum is valid."""
    return _ISSUED.fullmatch(digits) is not None and _is_right(digits)


def _is_right(digits: bytes) -> bool:
    """Whether the Luhn checksum (ISO/IEC 7812-1) is right."""
    return sum(digits[-1::-2].translate(_VALUE) + digits[-2::-2].translate(_VALUE_DOUBLED)) % 10 == 0


def _in_longer(source: SearchedText, start: int, end: int) -> bool:
    """Whether the digits are part of a longer number, which may contain a valid card number by chance."""
    return _in_hex(source, start, end) or _in_uuid(source.text, start, end)


def _in_uuid(text: str, start: int, end: int) -> bool:
    """Whether the digits belong to a UUID."""
    around = max(0, start - _UUID_LENGTH)
    found = _UUID.finditer(text[around : end + _UUID_LENGTH])
    return any(match.start() < end - around and start - around < match.end() for match in found)


def _in_hex(source: SearchedText, start: int, end: int) -> bool:
    """Whether the digits belong to a longer hexadecimal number, like a trace ID."""
    shape = source.shape
    left, right = start, end
    while left > 0 and shape[left - 1] != _OTHER and start - left < _LONGEST_HEX:
        left -= 1
    while right < len(shape) and shape[right] != _OTHER and right - end < _LONGEST_HEX:
        right += 1
    return right - left > end - start and _HEX.issuperset(source.text[left:right])


_IBAN_LENGTHS: Final = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 "
        "EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 "
        "KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 "
        "PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 "
        "UA29 VA22 VG24 XK20 YE30",
    )
}
"""Characters of an IBAN by country (the SWIFT registry, ISO 13616)."""
_IBAN_CHARS = {
    length: re.compile(rf"[A-Za-z]{{2}}[0-9]{{2}}(?:[ \u00a0-]?[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])")
    for length in set(_IBAN_LENGTHS.values())
}


def ibans(source: SearchedText) -> Iterator[Span]:
    """International bank account numbers, in one piece or in groups."""
    text, shape = source.text, source.shape
    after_space = b" " + shape
    at = after_space.rfind(b" aadd")
    while at >= 0:
        length = _IBAN_LENGTHS.get(text[at : at + 2].upper())
        iban = _IBAN_CHARS[length].match(text, at) if length is not None else None
        if iban is not None and is_iban(iban[0]) and not _in_uuid(text, at, iban.end()):
            yield at, iban.end(), IBAN
        at = after_space.rfind(b" aadd", 0, at)


def is_iban(number: str) -> bool:
    """Whether the checksum (ISO 7064, mod 97-10) is right."""
    plain = "".join(char for char in number if char.isalnum())
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1
