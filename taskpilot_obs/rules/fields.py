"""The types of settings, and what each refuses."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskpilot_obs.rules.promql import seconds
from taskpilot_obs.semconv import FIRST_TOKEN_BUCKETS, RUN_BUCKETS


def _duration(value: str) -> str:
    seconds(value)
    return value


def matching(pattern: str, wrong: str) -> AfterValidator:
    """Return a validator that refuses a text which does not match as a whole, with the reason."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{value!r} {wrong}")
        return value

    return AfterValidator(check)


def below_the_last(bounds: tuple[float, ...]) -> AfterValidator:
    """Return a validator that refuses a quantile above the last bound of a histogram, where those of PromQL end."""

    def check(value: float) -> float:
        if value >= bounds[-1]:
            raise ValueError(f"{value:g} s can never be exceeded, because the histogram ends at {bounds[-1]:g} s")
        return value

    return AfterValidator(check)


def a_bound_of(bounds: tuple[float, ...]) -> AfterValidator:
    """Return a validator that refuses what is not a bound of a histogram: counts exist only up to its bounds."""

    def check(value: float) -> float:
        if value not in bounds:
            allowed = ", ".join(f"{bound:g}" for bound in bounds)
            raise ValueError(f"{value:g} is not a bucket bound; choose one of {allowed}")
        return value

    return AfterValidator(check)


Duration = Annotated[str, AfterValidator(_duration)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Usd = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RunSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False), below_the_last(RUN_BUCKETS)]
FirstTokenSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False), below_the_last(FIRST_TOKEN_BUCKETS)]
Events = Annotated[int, Field(ge=1)]
Url = Annotated[
    str,
    matching(r"(https?://|/)[^\s\"'{}]*[^\s\"'{}/]", "must begin with http://, https:// or / and end without a slash"),
]
LabelName = Annotated[str, matching(r"[a-zA-Z_][a-zA-Z0-9_]*", "is not a label name")]
PolicyName = Annotated[str, matching(r"[A-Za-z0-9_-]+", "must consist of letters, digits, _ and -")]
JobName = Annotated[
    str,
    matching(r'[^"\\\n]+', "is not a job name: quotes, backslashes and line breaks are not allowed"),
]


class Section(BaseModel):
    """A part of the settings: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True)
