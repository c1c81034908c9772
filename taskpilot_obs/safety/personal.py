"""Where personal and payment data lie in a text: e-mail addresses, payment cards, bank accounts.

Numbers count only with a right checksum, so that order numbers, UUIDs and trace IDs survive. Linear in the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.source import Source, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

EMAIL: Final = "email"
CARD: Final = "card"
IBAN: Final = "iban"

_LOCAL_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.%+-'#!$&*^~"
_LOCAL_REVERSED = re.compile(r"[\w.%+\-'#!$&*^~]++")
_DOMAIN = re.compile(r"(?:[\w-]++\.)+[^\W\d_][\w-]++(?!\.[\w-])")
_MAX_LOCAL = 320
"""Characters looked at before an `@`; RFC 5321 allows 64."""
_IMAGE_AT_SCALE = re.compile(r"[0-9](?:\.[0-9])?x\.(?:png|jpe?g|gif|webp|svg|avif|heic|bmp|tiff?)", re.IGNORECASE)


def emails(source: Source) -> Iterator[Span]:
    """E-mail addresses, international ones too; not `image@2x.png`, nor `git@…`, which is nobody's."""
    text = source.text
    done = 0
    at = text.find("@")
    while at >= 0:
        start = _local_part(text, max(done, at - _MAX_LOCAL), at)
        domain = _DOMAIN.match(text, at + 1) if start < at else None
        done = at + 1
        if domain is not None and not _is_nobodys(text, start, at, domain.end()):
            done = domain.end()
            yield start, done, EMAIL
        at = text.find("@", done)


def _is_nobodys(text: str, start: int, at: int, end: int) -> bool:
    if at - start == 3 and text.startswith("git", start):  # noqa: PLR2004  its length
        return True
    return text[at + 1].isdigit() and _IMAGE_AT_SCALE.fullmatch(text, at + 1, end) is not None


def _local_part(text: str, earliest: int, at: int) -> int:
    """Where the part before the `@` begins; `at` where there is none."""
    before = text[earliest:at]
    outside = before.rstrip(_LOCAL_CHARS)
    if outside and outside[-1] > "\x7f":  # perhaps a letter beyond ASCII
        local = _LOCAL_REVERSED.match(before[::-1])
        outside = before[: len(before) - len(local[0])] if local is not None else before
    return at - len(before[len(outside) :].lstrip("'"))


_GAPS = r" .\u00a0-"
_CARD = re.compile(
    rf"(?:[0-9]{{12,19}}+|[0-9]{{4}}[{_GAPS}](?:[0-9]{{4}}[{_GAPS}][0-9]{{4}}(?:[{_GAPS}][0-9]{{1,7}})?"
    rf"|[0-9]{{6}}[{_GAPS}][0-9]{{4,5}}))(?![0-9])"
)
_CARDS_BEGIN = ((b"d" * 12, 12), (b"dddd dddd", 5))
"""Shapes that a card begins with, and how much further the next may begin."""
_OTHER = ord(" ")
_DIGIT = ord("d")
_ISSUED = re.compile(
    rb"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    rb"|(?:5[1-5]|2[2-7])[0-9]{14}"  # Mastercard
    rb"|3[47][0-9]{13}"  # American Express
    rb"|3[0689][0-9]{12}(?:[0-9]{2})?(?:[0-9]{3})?"  # Diners Club
    rb"|35[0-9]{14,17}"  # JCB
    rb"|(?:6|5[0678])[0-9]{11,18}"  # Discover, UnionPay, RuPay, Maestro
)
_VALUE = bytes(byte % 48 for byte in range(256))
_VALUE_DOUBLED = bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[byte % 48] if 48 <= byte <= 57 else 0 for byte in range(256))  # noqa: PLR2004  ASCII digits
_HEX = frozenset("0123456789abcdefABCDEF")
_LONGEST_HEX = 64
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_UUID_LENGTH = 36


def cards(source: Source) -> Iterator[Span]:
    """Numbers of payment cards, in one piece or in the groups in which they are printed."""
    text, shape = source.text, source.shape
    for beginning, step in _CARDS_BEGIN:
        at = shape.find(beginning)
        while at >= 0:
            card = _CARD.match(text, at) if at == 0 or shape[at - 1] != _DIGIT else None
            if card is not None:
                end = card.end()
                if is_card(source.ascii[at:end]) and not (_in_hex(source, at, end) or _in_uuid(text, at, end)):
                    yield at, end, CARD
            at = shape.find(beginning, at + step)


def is_card(number: bytes) -> bool:
    """Whether the Luhn checksum (ISO/IEC 7812-1) is right and some issuer gives out such numbers."""
    digits = number if number.isdigit() else number.translate(None, b" .-?")
    total = sum(digits[-1::-2].translate(_VALUE) + digits[-2::-2].translate(_VALUE_DOUBLED))
    return total % 10 == 0 and _ISSUED.fullmatch(digits) is not None


def _in_uuid(text: str, start: int, end: int) -> bool:
    """Whether the digits belong to a UUID, whose groups may well pass for those of a card."""
    around = max(0, start - _UUID_LENGTH)
    found = _UUID.finditer(text[around : end + _UUID_LENGTH])
    return any(match.start() < end - around and start - around < match.end() for match in found)


def _in_hex(source: Source, start: int, end: int) -> bool:
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


def ibans(source: Source) -> Iterator[Span]:
    """International bank account numbers, in one piece or in groups."""
    shape = source.shape
    at = shape.find(b"aadd")
    while at >= 0:
        if at == 0 or shape[at - 1] == _OTHER:
            yield from _iban_at(source.text, at)
        at = shape.find(b"aadd", at + 2)


def _iban_at(text: str, at: int) -> Iterator[Span]:
    length = _IBAN_LENGTHS.get(text[at : at + 2].upper())
    iban = _IBAN_CHARS[length].match(text, at) if length is not None else None
    if iban is not None and is_iban(iban[0]):
        yield at, iban.end(), IBAN


def is_iban(number: str) -> bool:
    """Whether the checksum (ISO 7064, mod 97-10) is right."""
    plain = "".join(char for char in number if char.isalnum())
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1
