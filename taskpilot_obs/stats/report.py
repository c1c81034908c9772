"""A report on a stretch of time as one file, with plots: HTML that needs nothing else, or Markdown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs._support.charts import STYLE, Chart, Series, bars, blocks
from taskpilot_obs._support.figures import count, known_cost, ms, percent, share, usd
from taskpilot_obs._telemetry.filters import EVERYTHING
from taskpilot_obs._telemetry.sketch import quantiles
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.stats.model import CostShare, Stats, TenantsReport
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.stats.reading import DIMENSIONS, counts_by, latest, shares
from taskpilot_obs.stats.series import Point, get_points
from taskpilot_obs.stats.usage import get_tenants_report, stats_and_sums

if TYPE_CHECKING:
    from taskpilot_obs._telemetry.answers import Key
    from taskpilot_obs._telemetry.counts import Counts
    from taskpilot_obs.store import Store

TOP: Final = 15
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;"
    "text-align:right}td:first-child,th:first-child{text-align:left}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#14181d}td,th{border-color:#3a424d}}"
)


class ReportTable(NamedTuple):
    """Names and figures."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


class Report(NamedTuple):
    """The content of a report."""

    start: datetime
    end: datetime
    facts: ReportTable
    plots: tuple[Chart, ...]
    tables: tuple[ReportTable, ...]
    incomplete_before: datetime | None

    @property
    def span(self) -> str:
        """The stretch of time, and how much of it the figures cover."""
        span = f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"
        if self.incomplete_before is None:
            return span
        return f"{span}; calls before {self.incomplete_before:%Y-%m-%d %H:%M} UTC were deleted by age"


def write_report(
    path: str | os.PathLike[str],
    period: Period = "7d",
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
) -> Path:
    """Write a report to a file that its owner alone may read: spend, latency, errors, top models, agents and tenants.

    Args:
        path: ends in `.html` or `.md`; a file that is there is replaced.
        period: as in `get_stats`.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.

    Returns:
        The path of the file.

    Raises:
        ConfigurationError: another kind of file, a period that cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
        OSError: the file cannot be written.
    """
    target = Path(path)
    rendered = _KINDS.get(target.suffix.lower())
    if rendered is None:
        raise ConfigurationError(f"report: given {target.name!r}; the name must end in {' or '.join(_KINDS)}")
    from taskpilot_obs.store.access import opened

    with opened(store) as opened_store:
        text = rendered(_report(bounds(period, now), opened_store))
    target.unlink(missing_ok=True)
    with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return target


def _report(period: tuple[datetime, datetime], store: Store) -> Report:
    whole, sums = stats_and_sums(*period, EVERYTHING, store)
    tenants = get_tenants_report(period, store=store, limit=TOP)
    since = latest(whole.incomplete_before, tenants.incomplete_before)
    return Report(*period, _facts(whole), _plots(get_points(*period, store)), _tables(whole, sums, tenants), since)


def _tables(whole: Stats, sums: Mapping[Key, Counts], tenants: TenantsReport) -> tuple[ReportTable, ...]:
    by_model, by_agent = (
        shares(counts_by(sums, DIMENSIONS.index(name)), whole.cost_usd) for name in ("model_name", "agent")
    )
    models = [
        (name, f"{stats.requests:,}", percent(stats.success_rate), ms(stats.latency.p95_ms), *_share(share))
        for name, share in islice(by_model.items(), TOP)
        for stats in (whole.by_model[name],)
    ]
    agents = [(name, f"{share.requests:,}", *_share(share)) for name, share in islice(by_agent.items(), TOP)]
    tenant_lines = [
        (line.tenant, f"{line.requests:,}", percent(line.success_rate), ms(line.p95_ms), *_share(line))
        for line in tenants.tenants
    ]
    failures = [(name, f"{amount:,}") for name, amount in islice(whole.errors_by_type.items(), TOP)]
    head = ("requests", "success", "p95", "cost", "of all")
    return (
        ReportTable(_title("Models", len(by_model)), ("model", *head), tuple(models)),
        ReportTable(_title("Agents", len(by_agent)), ("agent", "requests", "cost", "of all"), tuple(agents)),
        ReportTable(_title("Tenants", tenants.tenants_total), ("tenant", *head), tuple(tenant_lines)),
        ReportTable(_title("Errors", len(whole.errors_by_type)), ("type", "failures"), tuple(failures)),
    )


def _title(what: str, of: int) -> str:
    return what if of <= TOP else f"{what}: the {TOP} largest of {of:,}"


def _facts(stats: Stats) -> ReportTable:
    lines = (
        ("requests", f"{stats.requests:,}"),
        ("success rate", percent(stats.success_rate)),
        ("cost", known_cost(stats.cost_usd, stats.cost_coverage)),
        ("calls with a known price", share(stats.cost_coverage)),
        ("tokens in / out", f"{stats.tokens.input:,} / {stats.tokens.output:,}"),
        ("latency p50 / p95 / p99", " / ".join(map(ms, list(stats.latency.model_dump().values())[1:]))),
        ("first token p50 / p95 / p99", " / ".join(map(ms, stats.time_to_first_token.model_dump().values()))),
    )
    return ReportTable("Summary", ("", ""), lines)


def _plots(points: Sequence[Point]) -> tuple[Chart, ...]:
    labels = tuple(f"{point.start:%Y-%m-%d %H:%M}" for point in points)

    def chart(title: str, values: Iterable[float | None], shown: Callable[[float], str]) -> Chart:
        return Chart(title, labels, (Series(title, tuple(values)),), shown)

    return (
        chart("Spend", (float(point.counts.cost) for point in points), usd),
        chart("Latency, p95", (quantiles(point.latency, 0.95)[0] for point in points), ms),
        chart("Failures", (float(point.counts.failures) for point in points), count),
    )


def _markdown(report: Report) -> str:
    parts = [f"# LLM usage\n\n{report.span}\n"]
    parts.append(_markdown_table(report.facts))
    parts += [
        f"## {plot.title}\n\n`{blocks(values)}` up to {plot.shown(max(value or 0.0 for value in values))}\n"
        for plot in report.plots
        for values in (plot.series[0].values,)
    ]
    parts += [_markdown_table(table) for table in report.tables if table.lines]
    return "\n".join(parts)


def _markdown_table(table: ReportTable) -> str:
    rows = [table.head, tuple("---" for _ in table.head), *table.lines]
    text = "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)
    return f"## {table.title}\n\n{text}\n"


def _cell(text: str) -> str:
    """Names come from users: they must not end a cell or begin markup."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _html(report: Report) -> str:
    body = [f"<h1>LLM usage</h1><p>{report.span}</p>", _html_table(report.facts)]
    body += [bars(plot) for plot in report.plots]
    body += [_html_table(table) for table in report.tables if table.lines]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>LLM usage</title>'
        f"<style>{_STYLE}{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _html_table(table: ReportTable) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in table.lines)
    return f"<h2>{escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>"


def _share(part: CostShare) -> tuple[str, str]:
    return known_cost(part.cost_usd, part.cost_coverage), percent(part.percent)


_KINDS: Final[dict[str, Callable[[Report], str]]] = {".html": _html, ".md": _markdown}
