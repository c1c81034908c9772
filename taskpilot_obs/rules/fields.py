"""The types of settings, and what each refuses."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskpilot_obs.rules.promql import seconds
from taskpilot_obs.semconv import FIRST_TOKEN_BUCKETS, RUN_BUCKETS

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def _duration(value: str) -> str:
    seconds(value)
    return value


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError(f"{value!r} is not a label name")
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"(https?://|/)[^\s\"'{}]*[^\s\"'{}/]", value):
        raise ValueError(f"{value!r} must begin with http://, https:// or / and end without a slash")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError(f"{value!r} must consist of letters, digits, _ and -")
    return value


def _job(value: str) -> str:
    if not re.fullmatch(r'[^"\\\n]+', value):
        raise ValueError(f"{value!r} is not a job name: quotes, backslashes and line breaks are not allowed")
    return value


def below_the_last(bounds: tuple[float, ...]) -> AfterValidator:
    """Refuse a quantile that no histogram with these bounds can exceed: PromQL's ends at the last of them."""

    def check(value: float) -> float:
        if value >= bounds[-1]:
            raise ValueError(f"{value:g} s can never be exceeded, for the histogram ends at {bounds[-1]:g} s")
        return value

    return AfterValidator(check)


Duration = Annotated[str, AfterValidator(_duration)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Usd = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RunSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False), below_the_last(RUN_BUCKETS)]
FirstTokenSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False), below_the_last(FIRST_TOKEN_BUCKETS)]
Events = Annotated[int, Field(ge=1)]
Url = Annotated[str, AfterValidator(_url)]
LabelName = Annotated[str, AfterValidator(_label)]
PolicyName = Annotated[str, AfterValidator(_name)]
JobName = Annotated[str, AfterValidator(_job)]


class Section(BaseModel):
    """A part of the settings: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)
