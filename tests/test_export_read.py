"""Exported files in the hands of others: FOCUS as its specification has it, CSV and Parquet as DuckDB reads them."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _stored import NOON, llm_call, sqlite_url, store_at

from taskpilot_obs.records import Status
from taskpilot_obs.stats import export_calls, get_cost_breakdown
from taskpilot_obs.stats.export import FOCUS_COLUMNS, ExportFormat
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

SPAN = (NOON - timedelta(days=2), NOON + timedelta(days=2))
CALLS = 40


class Column(NamedTuple):
    """What FOCUS 1.2 demands of a column."""

    kind: str
    nullable: bool = False
    allowed: tuple[str, ...] = ()


_AI = ("Bots", "Generative AI", "Machine Learning", "Natural Language Processing", "Other (AI and Machine Learning)")
MANDATORY = {
    "BilledCost": Column("decimal"),
    "BillingAccountId": Column("string"),
    "BillingAccountName": Column("string", nullable=True),
    "BillingCurrency": Column("currency"),
    "BillingPeriodEnd": Column("datetime"),
    "BillingPeriodStart": Column("datetime"),
    "ChargeCategory": Column("string", allowed=("Usage", "Purchase", "Tax", "Credit", "Adjustment")),
    "ChargeClass": Column("string", nullable=True, allowed=("Correction",)),
    "ChargeDescription": Column("string", nullable=True),
    "ChargePeriodEnd": Column("datetime"),
    "ChargePeriodStart": Column("datetime"),
    "ContractedCost": Column("decimal"),
    "EffectiveCost": Column("decimal"),
    "InvoiceIssuerName": Column("string"),
    "ListCost": Column("decimal"),
    "PricingQuantity": Column("decimal", nullable=True),
    "PricingUnit": Column("string", nullable=True),
    "ProviderName": Column("string"),
    "PublisherName": Column("string"),
    "ServiceCategory": Column("string", allowed=("AI and Machine Learning",)),
    "ServiceName": Column("string"),
}
"""The columns that every file has. Of the service categories, the one of calls to models is listed."""
OTHERS = {
    "ChargeFrequency": Column("string", allowed=("One-Time", "Recurring", "Usage-Based")),
    "ConsumedQuantity": Column("decimal", nullable=True),
    "ConsumedUnit": Column("string", nullable=True),
    "PricingCategory": Column("string", nullable=True, allowed=("Standard", "Dynamic", "Committed", "Other")),
    "ServiceSubcategory": Column("string", allowed=_AI),
    "SkuId": Column("string", nullable=True),
    "SubAccountId": Column("string", nullable=True),
    "SubAccountName": Column("string", nullable=True),
}
"""Recommended and conditional columns that we write."""
NOT_WRITTEN = """
    AvailabilityZone BillingAccountType CapacityReservationId CapacityReservationStatus CommitmentDiscountCategory
    CommitmentDiscountId CommitmentDiscountName CommitmentDiscountQuantity CommitmentDiscountStatus
    CommitmentDiscountType CommitmentDiscountUnit ContractedUnitPrice InvoiceId ListUnitPrice PricingCurrency
    PricingCurrencyContractedUnitPrice PricingCurrencyEffectiveCost PricingCurrencyListUnitPrice RegionId RegionName
    ResourceId ResourceName ResourceType SkuMeter SkuPriceDetails SkuPriceId SubAccountType Tags
"""
"""Conditional columns for what a telemetry store does not know."""
SHAPES = {
    "decimal": r"-?\d+(\.\d+)?",
    "datetime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "currency": "[A-Z]{3}",
    "string": r".*\S.*",
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with calls of two months, with and without tenant, usage and cost."""
    calls = [llm_call(NOON + timedelta(minutes=number)) for number in range(CALLS)]
    lost = llm_call(NOON - timedelta(days=1), status=Status.ERROR, cost=None, usage=None, tenant=None)
    tiny = llm_call(NOON + timedelta(days=1), cost=Decimal("0.000000000001"), tenant=None, agent="writer, the first")
    with store_at(sqlite_url(tmp_path)) as store:
        Writer(store).write(rows_of([*calls, lost, tiny]))
    return sqlite_url(tmp_path)


def focus(url: str, tmp_path: Path) -> list[dict[str, str]]:
    path = tmp_path / "focus.csv"
    export_calls(path, SPAN, format="focus", store=url)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_columns_are_those_of_focus() -> None:
    """All mandatory columns of FOCUS 1.2 are there, every other one is one of its 57, and ours begin with `x_`."""
    ours = {name for name in FOCUS_COLUMNS if name.startswith("x_")}
    assert len(MANDATORY) + len(OTHERS) + len(NOT_WRITTEN.split()) == 57
    assert set(FOCUS_COLUMNS) - ours == MANDATORY.keys() | OTHERS.keys()
    assert len(FOCUS_COLUMNS) == len(set(FOCUS_COLUMNS))
    assert all(re.fullmatch(r"x_[A-Z][A-Za-z]+", name) for name in ours)


@pytest.mark.parametrize("name", [*MANDATORY, *OTHERS])
def test_the_values_are_those_of_focus(url: str, tmp_path: Path, name: str) -> None:
    """A value has the type and the format of its column, is one of the allowed ones, and is empty only where it may."""
    column = {**MANDATORY, **OTHERS}[name]
    lines = focus(url, tmp_path)
    assert len(lines) == 3
    for line in lines:
        value = line[name]
        assert value or column.nullable
        assert not value or re.fullmatch(SHAPES[column.kind], value), value
        assert not value or not column.allowed or value in column.allowed


def test_charges_of_focus_add_up(url: str, tmp_path: Path) -> None:
    """Charges lie within their billing period, no cost is hidden, and the sum is that of the cost breakdown."""
    lines = focus(url, tmp_path)
    for line in lines:
        billed, charged = (
            [datetime.fromisoformat(line[f"{kind}Period{edge}"]) for edge in ("Start", "End")]
            for kind in ("Billing", "Charge")
        )
        assert billed[0] <= charged[0] < charged[1] <= billed[1]
        assert line["BilledCost"] == line["EffectiveCost"] == line["ListCost"] == line["ContractedCost"]
    assert sum(Decimal(line["BilledCost"]) for line in lines) == get_cost_breakdown(SPAN, store=url).cost_usd
    assert [line["SubAccountId"] for line in lines].count("") == 2
    assert sum(int(line["x_UnpricedRequests"]) for line in lines) == 1


def ask(path: Path, what: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers about a file, which it reads as it finds it."""
    duckdb: Any = pytest.importorskip("duckdb", reason="DuckDB is not installed (dependency group test)")
    with duckdb.connect() as db:
        rows: list[tuple[Any, ...]] = db.sql(what.replace("FILE", f"'{path}'")).fetchall()
    return rows


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_duckdb_reads_the_calls(url: str, tmp_path: Path, kind: ExportFormat) -> None:
    """DuckDB reads calls without help: times as times, money exact, unknown values as NULL."""
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    path = tmp_path / f"calls.{kind}"
    assert export_calls(path, SPAN, store=url) == CALLS + 2
    sums = "SELECT min(created_at), count(*), count(cost), count(organization_id), sum(input_tokens) FROM FILE"
    ((begun, *counts),) = ask(path, sums)
    assert counts == [CALLS + 2, CALLS + 1, CALLS, (CALLS + 1) * 1_000]
    assert begun.astimezone(UTC) == NOON - timedelta(days=1)
    ((spent,),) = ask(path, "SELECT sum(cost::DECIMAL(24, 12)) FROM FILE")
    assert spent == get_cost_breakdown(SPAN, store=url).cost_usd


def test_duckdb_reads_the_charges(url: str, tmp_path: Path) -> None:
    """DuckDB reads a FOCUS file: costs by service and month, with names that hold commas."""
    path = tmp_path / "focus.csv"
    export_calls(path, SPAN, format="focus", store=url)
    rows = ask(path, "SELECT x_Agent, typeof(ChargePeriodStart) FROM FILE ORDER BY 1")
    assert rows[-1][0] == "writer, the first"
    assert {kind for _, kind in rows} == {"TIMESTAMP WITH TIME ZONE"}
