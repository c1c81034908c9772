"""Comparisons of large collections, whose failure prints what differs and not all that is equal."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Final

SHOWN: Final = 5


def differences(found: Collection[Hashable], expected: Collection[Hashable]) -> str:
    """What is missing and what is too much, with a few examples of each; empty if both hold the same items."""
    missing, extra = set(expected) - set(found), set(found) - set(expected)
    return "; ".join(_named(what, items) for what, items in (("missing", missing), ("unexpected", extra)) if items)


def mapping_differences(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """Keys that are missing, unexpected or have another value, with a few examples; empty if both are equal."""
    other = {
        f"{key}: {found[key]!r}, not {expected[key]!r}"
        for key in found.keys() & expected
        if found[key] != expected[key]
    }
    return "; ".join(
        filter(None, (differences(found.keys(), expected.keys()), _named("different", other) if other else ""))
    )


def _named(what: str, items: set[Hashable] | set[str]) -> str:
    shown = sorted(map(str, items))
    more = ", …" if len(shown) > SHOWN else ""
    return f"{len(shown)} {what}: {', '.join(shown[:SHOWN])}{more}"
