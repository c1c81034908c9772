"""Answers as JSON: money is text with up to 12 decimals, and a number of the same name with `_float` beside it.

`answer_model` draws the schema of such an answer from a model of the library, and `answer` writes it.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, create_model

TWIN = "_float"
MoneyText = Annotated[
    Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str), Field(examples=["0.012345678901"])
]


@cache
def answer_model(model: type[BaseModel]) -> type[BaseModel]:
    """Return the schema of a model's answer, for OpenAPI and for clients that validate answers."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        hint = _hint(field.annotation, is_money=_is_money(field.annotation))
        fields[name] = (hint, Field(description=field.description) if field.is_required() else field.default)
        if _is_money(field.annotation):
            fields[name + TWIN] = (float | None if type(None) in get_args(field.annotation) else float, Field())
    for name, computed in model.model_computed_fields.items():
        fields[name] = (get_type_hints(computed.wrapped_property.fget)["return"], Field())
    made = create_model(
        f"{model.__name__}Answer",
        __config__=ConfigDict(extra="forbid"),
        __doc__=model.__doc__,
        **fields,
    )
    return made  # noqa: RET504  create_model is typed by overloads that mypy resolves here


def answer(value: Any) -> Any:
    """Convert a value of the library to plain JSON."""
    if isinstance(value, BaseModel):
        return _object(value)
    if isinstance(value, Mapping):
        return {str(key): answer(held) for key, held in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return [answer(held) for held in value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [answer(held) for held in value]
    return _plain(value)


def _object(value: BaseModel) -> dict[str, Any]:
    money = _money_fields(type(value))
    found: dict[str, Any] = {}
    for name in (*type(value).model_fields, *type(value).model_computed_fields):
        held = getattr(value, name)
        found[name] = answer(held)
        if name in money:
            found[name + TWIN] = None if held is None else float(held)
    return found


@cache
def _money_fields(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in model.model_fields.items() if _is_money(field.annotation))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:.12f}".rstrip("0").rstrip(".") if value.as_tuple().exponent != 0 else f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.value if isinstance(value, Enum) else value


def _is_money(hint: Any) -> bool:
    if hint is Decimal:
        return True
    return any(_is_money(part) for part in get_args(hint)) if _is_union(hint) or _is_annotated(hint) else False


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _is_annotated(hint: Any) -> bool:
    return get_origin(hint) is Annotated


def _hint(hint: Any, *, is_money: bool) -> Any:
    if is_money:
        return MoneyText | None if type(None) in get_args(hint) else MoneyText
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return answer_model(hint)
    origin, parts = get_origin(hint), get_args(hint)
    if not parts or origin is None or _is_annotated(hint):
        return hint
    mapped = tuple(_hint(part, is_money=False) if part is not Ellipsis else part for part in parts)
    return reduce(or_, mapped) if _is_union(hint) else origin[mapped]
