"""A run's report as Markdown and as one HTML page, which needs neither network nor script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.charts import COLOURS, HEIGHT, STYLE, WIDTH, Bar, axis_end, row_bar
from taskpilot_obs._support.figures import UNKNOWN, count, ms, percent, seconds, share, usd

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskpilot_obs.compare.bench.calls import BenchCall
    from taskpilot_obs.compare.bench.figures import ArmReport, BenchmarkReport, Distribution, Range, Share

HEAD: Final = (
    "arm",
    "calls",
    "success",
    "correct",
    "p50",
    "p95",
    "first token",
    "per call",
    "per correct",
    "priced",
)
_SHOWN: Final = 400
"""Points of a line of the plot."""


def cells(name: str, arm: ArmReport) -> tuple[str, ...]:
    """One arm as a row under `HEAD`."""
    return (
        name,
        count(arm.request_count + arm.error_request_count),
        interval_of(arm.success),
        interval_of(arm.correct),
        ms(_p50(arm.request_latency)),
        ms(None if arm.request_latency is None else arm.request_latency.p95),
        ms(_p50(arm.time_to_first_token)),
        usd(arm.cost_per_call_usd),
        usd(arm.cost_per_correct_usd),
        share(arm.cost_coverage),
    )


def interval_of(found: Share | None) -> str:
    """A share in percent with the ends of its interval."""
    if found is None:
        return UNKNOWN
    return f"{percent(100 * found.value)} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _p50(found: Distribution | None) -> float | None:
    return None if found is None else found.p50


def facts(report: BenchmarkReport) -> Iterator[tuple[str, str]]:
    """The circumstances in which the figures were measured."""
    plan = report.plan
    yield "run", f"{report.run_id} ({report.status}{'' if report.stopped is None else f': {report.stopped}'})"
    yield "time", f"{report.start_time:%Y-%m-%d %H:%M:%S} UTC, {seconds(report.benchmark_duration_s)}"
    items = "all items" if plan.items is None else f"the first {plan.items} items"
    yield "tasks", f"{', '.join(plan.tasks)}; {items} of each, {plan.iterations} times; seed {plan.seed}"
    yield "load", f"{report.load}; warm-up calls of each arm, in no figure: {plan.warm_up}"
    yield "order", "interleaved: each item goes to all arms in turn"
    yield "retries", report.retry_rule
    yield "provider cache", f"{report.cache_state}; {_cached(report)}"
    lags = [arm.generator_lag.p99 for arm in report.arms.values() if arm.generator_lag is not None]
    yield "runner's lag", f"p99 {ms(max(lags))}" if lags else UNKNOWN
    if plan.max_cost_usd is not None:
        yield "cap", usd(plan.max_cost_usd)
    for name, arm in report.arms.items():
        yield f"arm {name}", "; ".join(f"{key} {value}" for key, value in arm.described.items() if value)
    yield "versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())


def _cached(report: BenchmarkReport) -> str:
    known = [arm.cached_tokens for arm in report.arms.values() if arm.cached_tokens is not None]
    return f"{count(sum(known))} prompt tokens were read from one" if known else "how many tokens, no provider stated"


def troubles(report: BenchmarkReport) -> Iterator[str]:
    """Arms that failed, and errors by category."""
    for name, why in report.failed_arms.items():
        yield f"{name} was not asked: {why}"
    for name, arm in report.arms.items():
        if arm.error_request_count:
            told = ", ".join(f"{number} {category}" for category, number in arm.error_summary.items())
            yield f"{name}: {arm.error_request_count} calls failed ({told})"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(report: BenchmarkReport) -> str:
    """The report as Markdown."""
    rows = [cells(name, arm) for name, arm in report.arms.items()]
    lines = [
        f"# Benchmark {report.run_id}",
        "",
        *_table(HEAD, rows),
        "",
        *(f"- {finding.sentence}" for finding in report.findings),
        *(f"- {trouble}" for trouble in troubles(report)),
        "",
        "Intervals hold at 95 %. Latencies are of successful calls. The verdicts err in 5 % over all pairs of arms.",
        "",
        *_table(("what", "how"), facts(report)),
        "",
    ]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[tuple[str, str]]) -> Iterator[str]:
    yield _row(head)
    yield _row(["---"] * len(head))
    for row in rows:
        yield _row([cell.replace("|", "\\|").replace("\n", " ") for cell in row])


def _row(given: Sequence[str]) -> str:
    return f"| {' | '.join(given)} |"


# --- HTML -------------------------------------------------------------------------------------------------------------

_PAGE_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1, li { overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .9rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--grid); vertical-align: top }
.wide { overflow-x: auto }
.arms td, .arms th, .bar td:nth-child(2) { white-space: nowrap }
.facts td:first-child { min-width: 5rem }
.facts td, .bar td:first-child { overflow-wrap: anywhere }
.bar { table-layout: fixed }
.bar td { width: 20%; vertical-align: middle }
.bar td:last-child { width: 60% }
@media (max-width: 40rem) { .bar td { width: 28%; padding: .3rem .2rem } .bar td:last-child { width: 44% } }
.line { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke }
""" + "".join(f".l{number} {{ stroke: var(--c{number}) }}\n" for number in range(COLOURS))  # fmt: skip


def as_page(report: BenchmarkReport, calls: Sequence[BenchCall]) -> str:
    """The report as an HTML page.

    Args:
        report: of the run.
        calls: of the run, for the plot of the latencies.
    """
    rows = [cells(name, arm) for name, arm in report.arms.items()]
    said = [*(finding.sentence for finding in report.findings), *troubles(report)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.run_id)}</title><style>{STYLE}{_PAGE_STYLE}</style></head><body><main>"
        f"<h1>Benchmark {escape(report.run_id)}</h1>{_html_table('arms', HEAD, rows)}"
        f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in said)}</ul>{_bars(report)}{_latencies(report, calls)}"
        f"<h2>How it was measured</h2>{_html_table('facts', ('what', 'how'), [*facts(report)])}</main></body></html>"
    )


def _html_table(kind: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide" tabindex="0">{table}</div>'


def _bars(report: BenchmarkReport) -> str:
    arms = report.arms
    return "".join(
        (
            _figure("Correct answers, with 95 % intervals", [_of_share(n, a.correct) for n, a in arms.items()], share),
            _figure("Median latency, with exact 95 % intervals", [_median(n, a) for n, a in arms.items()], ms),
            _figure("USD per correct answer", [_cost(n, a) for n, a in arms.items()], usd),
        )
    )


def _of_share(name: str, found: Share | None) -> Bar:
    return Bar(name, None) if found is None else Bar(name, found.value, found.low, found.high)


def _median(name: str, arm: ArmReport) -> Bar:
    between: Range | None = arm.request_latency_p50_interval
    ends = (None, None) if between is None else (between.low, between.high)
    return Bar(name, _p50(arm.request_latency), *ends)


def _cost(name: str, arm: ArmReport) -> Bar:
    return Bar(name, None if arm.cost_per_correct_usd is None else float(arm.cost_per_correct_usd))


def _figure(title: str, bars: Sequence[Bar], shown: Callable[[float], str]) -> str:
    top = axis_end(max((max(bar.value or 0.0, bar.high or 0.0) for bar in bars), default=0.0))
    rows = "".join(
        f"<tr><td>{escape(bar.name)}</td><td>{escape(UNKNOWN if bar.value is None else shown(bar.value))}</td>"
        f"<td>{row_bar(bar, top, shown, min(number, COLOURS - 1))}</td></tr>"
        for number, bar in enumerate(bars)
    )
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><table class="bar">{rows}</table></figure>'


def _latencies(report: BenchmarkReport, calls: Sequence[BenchCall]) -> str:
    """For each arm, which share of the calls took at most how long."""
    by_arm: dict[str, list[float]] = {
        name: sorted(call.latency_ms for call in calls if call.arm == name and call.success and not call.warm_up)
        for name in report.arms
    }
    top = axis_end(max((values[-1] for values in by_arm.values() if values), default=0.0))
    lines = "".join(
        f'<polyline class="line l{min(number, COLOURS - 1)}" points="{_points(values, top)}"/>'
        for number, values in enumerate(by_arm.values())
        if values
    )
    legend = "".join(
        f'<li><span class="swatch c{min(number, COLOURS - 1)}"></span>{escape(name)}</li>'
        for number, name in enumerate(by_arm)
    )
    label = escape(f"Share of calls that took at most so long: {_medians(by_arm)}")
    return (
        '<figure class="chart"><figcaption>Share of calls that took at most so long</figcaption><div class="plot">'
        '<div class="y" aria-hidden="true"><span>100 %</span><span>50 %</span><span>0 %</span></div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{label}">{lines}</svg>'
        f'<div class="x" aria-hidden="true"><span>0 ms</span><span>{ms(top / 2)}</span><span>{ms(top)}</span></div>'
        f'</div><ul class="legend">{legend}</ul></figure>'
    )


def _medians(by_arm: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {ms(values[len(values) // 2]) if values else UNKNOWN}" for name, values in by_arm.items())


def _points(values: Sequence[float], top: float) -> str:
    """Of many values, some at equal distances, and always the last."""
    step = max(1, len(values) // _SHOWN)
    places = [*range(0, len(values), step), len(values) - 1]
    return " ".join(
        f"{WIDTH * values[place] / top:.1f},{HEIGHT * (1 - (place + 1) / len(values)):.1f}" for place in places
    )
