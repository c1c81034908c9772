"""LLM calls of the store as a file: CSV or Parquet, a line a call, or costs by day in the columns of FOCUS."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, get_args, get_type_hints

from taskpilot_obs._support.calendar import calendar_period
from taskpilot_obs._support.installed import is_installed
from taskpilot_obs._support.timestamps import EPOCH
from taskpilot_obs._support.visible import csv_cell
from taskpilot_obs._telemetry.answers import By, Key
from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.calls import MOST_CALLS, Call, get_calls
from taskpilot_obs.stats.periods import Period, bounds

if TYPE_CHECKING:
    from taskpilot_obs.store import Store

ExportFormat = Literal["csv", "parquet", "focus"]
Line = Mapping[str, Any]
_DAY: Final = timedelta(days=1)
_SUFFIXES: Final = {".csv": "csv", ".parquet": "parquet"}
_DIMENSIONS: Final = ("provider", "model_name", "organization_id", "agent")
FOCUS_COLUMNS: Final = (
    *("BillingAccountId", "BillingAccountName", "SubAccountId", "SubAccountName"),
    *("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"),
    *("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "BillingCurrency"),
    *("ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency"),
    *("ConsumedQuantity", "ConsumedUnit", "PricingQuantity", "PricingUnit", "PricingCategory"),
    *("ProviderName", "PublisherName", "InvoiceIssuerName", "ServiceCategory"),
    *("ServiceSubcategory", "ServiceName", "SkuId"),
    *("x_Agent", "x_Requests", "x_UnpricedRequests", "x_InputTokens", "x_OutputTokens"),
)
"""Columns of FOCUS 1.2, the FinOps Open Cost and Usage Specification; those with `x_` are additions, as it allows."""


def export_calls(
    path: str | os.PathLike[str],
    period: Period = "30d",
    *,
    format: ExportFormat | None = None,  # noqa: A002  the name of the option on the command line
    store: str | Store | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> int:
    """Write calls to a file that its owner alone may read, and return how many lines it has.

    Args:
        path: the file; one that is there is replaced when the new one is whole.
        period: as in `get_stats`.
        format: `csv` or `parquet` (extra `parquet`): a line a call, with the fields of `Call`; `focus`: a line for each
            day, provider, model, tenant and agent, as CSV with the columns of FOCUS. None: as its name ends.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: only calls with this value, as in `get_stats`.

    Raises:
        ConfigurationError: an argument cannot be read, or no store is named.
        MissingExtraError: Parquet without the extra.
        StoreError: the store is missing or cannot be used.
        OSError: the file cannot be written.
    """
    target = Path(path)
    chosen = format or _SUFFIXES.get(target.suffix.lower())
    if chosen not in get_args(ExportFormat):
        raise ConfigurationError(
            f"format: given {format or target.name!r}; allowed are {', '.join(get_args(ExportFormat))}, "
            f"or a file that ends in {' or '.join(_SUFFIXES)}"
        )
    if chosen == "parquet" and not is_installed("pyarrow"):
        raise MissingExtraError("export to Parquet", "parquet")
    start, end = bounds(period, now)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        if chosen == "focus":
            written = _write_csv(part, FOCUS_COLUMNS, _focus(start, end, store, asked))
        elif chosen == "csv":
            written = _write_csv(part, tuple(Call.model_fields), _calls(start, end, store, asked))
        else:
            written = _write_parquet(part, _calls(start, end, store, asked))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return written


def _create(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)


def _calls(start: datetime, end: datetime, store: str | Store | None, asked: Asked) -> Iterator[Line]:
    """The calls, newest first, read page by page."""
    after = None
    while True:
        page = get_calls((start, end), store=store, limit=MOST_CALLS, after=after, **asked)
        yield from (dict(call) for call in page.calls)
        after = page.next
        if after is None:
            return


def _write_csv(path: Path, columns: Sequence[str], lines: Iterator[Line]) -> int:
    written = 0
    with os.fdopen(_create(path), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for line in lines:
            writer.writerow([_cell(line[name]) for name in columns])
            written += 1
    return written


def _cell(value: Any) -> Any:
    """A value as text that spreadsheets and databases read: times in ISO 8601, and no text a formula."""
    if isinstance(value, datetime):
        return value.isoformat()
    return csv_cell(value) if isinstance(value, Decimal | str) else value


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _write_parquet(path: Path, lines: Iterator[Line]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, _type_of(name, pa)) for name in Call.model_fields])
    written = 0
    with os.fdopen(_create(path), "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        while batch := [line for _, line in zip(range(MOST_CALLS), lines, strict=False)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            written += len(batch)
    return written


def _type_of(name: str, pa: Any) -> Any:
    """The column type of a field of `Call`."""
    kind = get_type_hints(Call)[name]
    allowed = {kind, *get_args(kind)}
    for python, column in (
        (datetime, pa.timestamp("us", tz="UTC")),
        (Decimal, pa.decimal128(24, 12)),
        (bool, pa.bool_()),
        (int, pa.int64()),
        (float, pa.float64()),
    ):
        if python in allowed:
            return column
    return pa.string()


# --- FOCUS -----------------------------------------------------------------------------------------------------------


def _focus(start: datetime, end: datetime, store: str | Store | None, asked: Asked) -> Iterator[Line]:
    from taskpilot_obs.stats.sources import answers_of

    with answers_of(store, start, end, filters_of(asked)) as (answers, _source):
        found = answers.totals(By(_DIMENSIONS, _DAY))
    for key in sorted(found):
        yield _charge(key, found[key])


def _charge(key: Key, counts: Counts) -> Line:
    number, *names = key
    tenant = names[_DIMENSIONS.index("organization_id")]
    provider, model, _, agent = (name or NONE for name in names)
    day = EPOCH + number * _DAY
    month = calendar_period("month", day)
    tokens = counts.input_tokens + counts.output_tokens
    cost = dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), counts.cost)
    return {
        **cost,
        "BillingAccountId": provider,
        "BillingAccountName": provider,
        "SubAccountId": tenant,
        "SubAccountName": tenant,
        "BillingPeriodStart": _utc(month.start),
        "BillingPeriodEnd": _utc(month.end),
        "ChargePeriodStart": _utc(day),
        "ChargePeriodEnd": _utc(day + _DAY),
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"LLM calls of {agent} to {model}",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "PricingQuantity": tokens,
        "PricingUnit": "Tokens",
        "PricingCategory": "Standard",
        "ProviderName": provider,
        "PublisherName": provider,
        "InvoiceIssuerName": provider,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": model,
        "SkuId": model,
        "x_Agent": agent,
        "x_Requests": counts.requests,
        "x_UnpricedRequests": counts.unpriced,
        "x_InputTokens": counts.input_tokens,
        "x_OutputTokens": counts.output_tokens,
    }


def _utc(moment: datetime) -> str:
    """A moment as FOCUS writes it, which ends in Z."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
