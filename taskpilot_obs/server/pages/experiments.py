"""`/experiments` and `/experiments/{name}`: which experiments there are, and how their variants compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args
from urllib.parse import quote

from markupsafe import Markup

from taskpilot_obs._support import figures
from taskpilot_obs._support.charts import Bar, axis_end, difference_bar, row_bar
from taskpilot_obs.compare.experiment import Measure
from taskpilot_obs.compare.report import Effect
from taskpilot_obs.server import blocks
from taskpilot_obs.server.pages.measures import change, measured
from taskpilot_obs.server.pages.query import TimedQuery, filter_fields, link, time_fields
from taskpilot_obs.server.params import ExperimentOptions, Name, PeriodText
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.server.shapes import ExperimentArm, ExperimentReport
from taskpilot_obs.stats import ExperimentSeen

_TONES: Final = {"better": "ok", "worse": "bad", "blocked": "warn"}
_SHOWN: Final = ("success", "cost", "p50", "p95", "correctness", "tokens", "violations")
_MEASURES: Final = tuple((name, name) for name in get_args(Measure))
_EMPTY: Final = (
    'experiment = Experiment("planner-prompt", {"v1": 0.5, "v2": 0.5})\nwith experiment.assign(user_id) as variant: …'
)


class ExperimentsPageQuery(TimedQuery):
    """Which stretch of time."""

    period: PeriodText = "30d"
    tenant: Name | None = None


class ExperimentPageQuery(ExperimentsPageQuery, ExperimentOptions):
    """One experiment, and how it is judged."""


def build(ask: Questions, query: ExperimentsPageQuery) -> blocks.Page:
    """One line for each experiment."""
    found = ask.experiments(query.over(ask.now), query.tenant)
    body: list[blocks.Block] = []
    if found:
        head = ("experiment", "variants", "units", "tasks", "first task", "last task")
        columns = [blocks.TableColumn(name, numeric=0 < place < 4) for place, name in enumerate(head)]  # noqa: PLR2004  the counts
        caption = f"{len(found):,} experiment{'' if len(found) == 1 else 's'} {query.spoken}"
        note = "A unit is the user, session, tenant or request that was assigned."
        body.append(blocks.Table("experiments", caption, columns, [_line(one, query) for one in found], note=note))
    else:
        said = f"No task of an experiment {query.spoken}. Assign variants where a request begins:"
        body.append(blocks.Notice("", said, code=_EMPTY))
    return blocks.Page(
        "Experiments",
        "Variants that users were assigned to. Each leads to what is certain of their difference.",
        body,
        [*time_fields(query), *filter_fields(ask, query)],
        link("/v1/experiments", **query.times, tenant=query.tenant),
    )


def _line(one: ExperimentSeen, query: ExperimentsPageQuery) -> list[blocks.Cell]:
    return [
        blocks.text(one.experiment, link(path_of(one.experiment), **query.times, tenant=query.tenant)),
        *(blocks.figure(figures.count, amount) for amount in (one.variants, one.units, one.tasks)),
        blocks.moment(one.first_seen),
        blocks.moment(one.last_seen),
    ]


def path_of(experiment: str) -> str:
    """The page of an experiment."""
    return f"/experiments/{quote(experiment, safe='')}"


def build_one(ask: Questions, query: ExperimentPageQuery, name: str) -> blocks.Page:
    """The conclusion, the arms with their intervals, the differences with theirs."""
    report = ask.experiment(name, query.over(ask.now), query, query.tenant)
    return blocks.Page(
        f"Experiment {name}",
        "Intervals and p-values hold at every look together, so this page may be read as often as you like.",
        [*_conclusion(report), _sizes(report), *_arms(report, query.primary), _effects(report)],
        [
            *time_fields(query),
            blocks.FormField("primary", "Decides", query.primary, _MEASURES),
            blocks.FormField("shares", "Planned shares", query.shares or ""),
            *filter_fields(ask, query),
        ],
        link(f"/v1{path_of(name)}", **query.times, primary=query.primary, shares=query.shares, tenant=query.tenant),
    )


def _conclusion(report: ExperimentReport) -> Iterator[blocks.Block]:
    verdict = "blocked" if report.blocked else report.primary.verdict if report.primary else ""
    yield blocks.Notice(_TONES.get(verdict, ""), report.conclusion)
    if not report.shares_stated:
        equal = ",".join(f"{arm.variant}={arm.share:.3g}" for arm in report.arms)
        said = "Equal shares are assumed, and the first variant is the control. State another plan above, as in"
        yield blocks.Notice("", said, code=equal)


def _sizes(report: ExperimentReport) -> blocks.FactList:
    ratio = report.sample_ratio_p_value
    return blocks.FactList(
        "At a glance",
        (
            ("Control", blocks.text(report.control)),
            ("Units", blocks.figure(figures.count, sum(arm.units for arm in report.arms))),
            ("Tasks", blocks.figure(figures.count, sum(arm.tasks for arm in report.arms))),
            ("Sizes fit the plan, p", blocks.Cell(f"{ratio:.3g}", ratio, tone="bad" if report.blocked else "")),
        ),
    )


def _arms(report: ExperimentReport, primary: str) -> Iterator[blocks.Table]:
    head = ("variant", "planned", "units", "tasks", *_SHOWN, "priced")
    columns = [blocks.TableColumn(name, numeric=place > 0) for place, name in enumerate(head)]
    note = "Each figure is over units: a user with a hundred tasks counts once."
    yield blocks.Table("arms", "Variants", columns, [_arm(arm) for arm in report.arms], note=note)
    ends = [getattr(arm, primary) for arm in report.arms] + [
        bounds.high for arm in report.arms if (bounds := arm.intervals.get(primary))
    ]
    top = axis_end(max((float(end) for end in ends if end is not None), default=0.0))
    drawn = blocks.TableColumn(f"0 to {measured(primary, top)}", numeric=False, drawn=True)
    columns = [
        blocks.TableColumn("variant", numeric=False),
        blocks.TableColumn(primary),
        blocks.TableColumn("between"),
        drawn,
    ]
    rows = [_interval(arm, primary, top) for arm in report.arms]
    yield blocks.Table("intervals", f"{primary.capitalize()} with its interval", columns, rows)


def _arm(arm: ExperimentArm) -> list[blocks.Cell]:
    return [
        blocks.text(arm.variant),
        blocks.figure(figures.share, arm.share),
        blocks.figure(figures.count, arm.units),
        blocks.figure(figures.count, arm.tasks),
        *(blocks.Cell(measured(name, getattr(arm, name)), getattr(arm, name)) for name in _SHOWN),
        blocks.figure(figures.share, arm.cost_coverage),
    ]


def _interval(arm: ExperimentArm, measure: str, top: float) -> list[blocks.Cell]:
    value, bounds = getattr(arm, measure), arm.intervals.get(measure)
    low, high = (None, None) if bounds is None else (bounds.low, bounds.high)
    bar = Bar(arm.variant, None if value is None else float(value), low, high)
    return [
        blocks.text(arm.variant),
        blocks.Cell(measured(measure, value), value),
        _between(measured(measure, low), measured(measure, high), low, high),
        blocks.Cell("", drawing=Markup(row_bar(bar, top, lambda amount: measured(measure, amount)))),  # noqa: S704  it escapes
    ]


def _between(shown_low: str, shown_high: str, low: float | None, high: float | None) -> blocks.Cell:
    if low is None or high is None:
        return blocks.Cell("too few units")
    return blocks.Cell(f"{shown_low} to {shown_high}", f"{low:.6g} to {high:.6g}")


def _effects(report: ExperimentReport) -> blocks.Table:
    head = ("measure", "variant", "difference", "between", "relative", "p", "verdict", "", "more units")
    texts = {"measure", "variant", "verdict", ""}
    drawn = "worse or better is on either side of the middle"
    columns = [blocks.TableColumn(name or "around 0", numeric=name not in texts, drawn=not name) for name in head]
    note = f"Differences from {report.control}; in the drawing, {drawn}, where there is none."
    rows = [_effect(effect, report.effects) for effect in report.effects]
    empty = "There is one variant only, so nothing can be compared."
    return blocks.Table("effects", "Differences", columns, rows, empty=empty, note=note)


def _effect(effect: Effect, all_effects: tuple[Effect, ...]) -> list[blocks.Cell]:
    reach = _reach(effect.measure, all_effects)
    shown = [change(effect.measure, end) for end in (effect.low, effect.high)]
    if effect.difference is None:
        shown, effect = [change(effect.measure, None)] * 2, effect.model_copy(update={"low": None, "high": None})
    title = f"{effect.variant}, {effect.measure}: {change(effect.measure, effect.difference)}"
    drawing = difference_bar(effect.difference, effect.low, effect.high, reach, title)
    more = effect.more_units if effect.verdict == "not enough evidence" else None
    relative = None if effect.relative is None else 100 * effect.relative
    return [
        blocks.text(effect.measure),
        blocks.text(effect.variant),
        blocks.Cell(change(effect.measure, effect.difference), effect.difference),
        _between(shown[0], shown[1], effect.low, effect.high),
        blocks.Cell("-" if relative is None else f"{relative:+.1f} %", relative),
        blocks.Cell("-" if effect.p_value is None else f"{effect.p_value:.2g}", effect.p_value),
        blocks.Cell(effect.verdict, effect.verdict, tone=_TONES.get(effect.verdict, "none")),
        blocks.Cell("", drawing=Markup(drawing)),  # noqa: S704  `difference_bar` escapes
        blocks.Cell("-" if more is None else f"about {more:,}", more),
    ]


def _reach(measure: str, effects: tuple[Effect, ...]) -> float:
    """How far the drawings of one measure reach to either side of 0."""
    own = [effect for effect in effects if effect.measure == measure]
    ends = [abs(end) for each in own for end in (each.difference, each.low, each.high) if end is not None]
    return axis_end(max(ends, default=0.0))
