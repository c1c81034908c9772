"""`taskpilot-obs bench`: the same tasks for several models or agents, measured and compared."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand

from taskpilot_obs._support.figures import usd
from taskpilot_obs.cli._option_groups import grouped
from taskpilot_obs.cli._output import complain, console, print_json, say, show
from taskpilot_obs.cli._store_options import AsJson, StoreUrl, explained

if TYPE_CHECKING:
    from taskpilot_obs.cli._bench_view import Bars
    from taskpilot_obs.compare.bench import Result, Session
    from taskpilot_obs.compare.bench.estimate import Estimate
    from taskpilot_obs.compare.bench.plan import Plan

FAILED: Final = 1
INTERRUPTED: Final = 130
RESULTS: Final = Path("taskpilot-bench")
_MANY: Final = ("--providers", "--tasks")


@dataclass(frozen=True)
class Workload:
    """What is asked, how often and how fast."""

    items: Annotated[int | None, typer.Option(min=1, help="Only the first items of each task.")] = None
    iterations: Annotated[int | None, typer.Option(min=1, help="How often each arm gets each item.  [default: 5]")] = (
        None
    )
    concurrency: Annotated[int | None, typer.Option(min=1, help="Closed loop: calls at a time.  [default: 4]")] = None
    rate: Annotated[str | None, typer.Option(help="Open loop instead: calls per second, such as 2/s.")] = None
    arrivals: Annotated[str, typer.Option(help="Of an open loop: poisson or constant.")] = "poisson"
    warm_up: Annotated[int, typer.Option(min=0, help="Calls of each arm before the measurement.")] = 1
    max_cost: Annotated[str | None, typer.Option(help="USD at most; a budget refuses what would exceed it.")] = None
    seed: Annotated[int, typer.Option(help="Of the order and the arrivals.")] = 0

    def options(self, *, demo: bool) -> dict[str, Any]:
        """The options of the plan; a demo asks each item once."""
        return {
            "items": self.items,
            "iterations": self.iterations or (1 if demo else 5),
            "concurrency": self.concurrency or (8 if demo else 4),
            "rate_per_s": None if self.rate is None else _rate(self.rate),
            "arrivals": self.arrivals,
            "warm_up": self.warm_up,
            "max_cost_usd": self.max_cost,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class EachCall:
    """How each call is made and judged."""

    retries: Annotated[int, typer.Option(min=0, help="Attempts beyond the first.")] = 2
    retries_in_latency: Annotated[
        bool,
        typer.Option("--retries-in-latency/--retries-out-of-latency", help="Whether latency begins before retries."),
    ] = True
    vary_prefix: Annotated[
        bool, typer.Option("--vary-prefix", help="Keep the providers' prompt caches from answering.")
    ] = False
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a call may take.")] = 120.0
    goodput: Annotated[
        list[str] | None,
        typer.Option(help="MEASURE:MS that a good call keeps, such as request_latency:2000."),
    ] = None

    def options(self) -> dict[str, Any]:
        """The options of the plan."""
        return {
            "retries": self.retries,
            "retries_in_latency": self.retries_in_latency,
            "vary_prefix": self.vary_prefix,
            "timeout_s": self.timeout,
            "objectives": dict(map(_objective, self.goodput or ())),
        }


@dataclass(frozen=True)
class Mode:
    """What the command does with the plan."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print calls, tokens and cost by arm, and ask nothing.")
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask where the plan may cost more than --max-cost.")] = False
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if an arm could not be asked, or never succeeded.")
    ] = False
    demo: Annotated[bool, typer.Option("--demo", help="Compare three pretend providers on this machine; no key.")] = (
        False
    )
    as_json: AsJson = False


WORKLOAD: Final = Workload()
EACH_CALL: Final = EachCall()
MODE: Final = Mode()


class ManyValues(TyperCommand):
    """A command whose options `--providers` and `--tasks` take several values: `--tasks simple reasoning`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        return super().parse_args(ctx, [*_repeated(args)])


def _repeated(args: Sequence[str]) -> Iterator[str]:
    option: str | None = None
    values = 0
    for arg in args:
        if arg.startswith("-"):
            option, values = (arg, 0) if arg in _MANY else (None, 0)
            yield arg
            continue
        if option is not None and values:
            yield option
        values += 1
        yield arg


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="bench", cls=ManyValues)(grouped(bench))


def bench(  # noqa: PLR0913  a command line has as many options as it has
    *,
    providers: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]PROVIDER/MODEL[@BASE_URL] or [NAME=]MODULE:FUNCTION, one or more."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="simple, reasoning, navigation or a JSONL file, one or more.  [default: simple]"),
    ] = None,
    workload: Workload = WORKLOAD,
    each_call: EachCall = EACH_CALL,
    prices: Annotated[list[Path] | None, typer.Option(help="A file of your own prices.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results.  [default: taskpilot-bench/RUN]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    mode: Mode = MODE,
    store: StoreUrl = None,
) -> None:
    """Ask several models or agents the same tasks in turn, and compare correctness, latency and cost."""
    asked = _Asked(providers or [], tasks, workload.options(demo=mode.demo) | each_call.options(), prices or [])
    with explained(), _with_demo(asked, workload.seed) if mode.demo else nullcontext(asked) as asked:
        plan, folder = _plan(asked, out, resume)
        with closing(_session(plan, folder, store, asked.prices)) as session:
            code = _go(session, mode)
    raise typer.Exit(code)


class _Asked(NamedTuple):
    """What a command line asks for."""

    arms: list[str]
    tasks: list[str] | None
    options: dict[str, Any]
    prices: list[Path]


@contextmanager
def _with_demo(asked: _Asked, seed: int) -> Iterator[_Asked]:
    """Add pretend providers on this machine, the tasks that come with the library and made-up prices."""
    from taskpilot_obs.compare.bench.pretend import pretend_providers
    from taskpilot_obs.compare.bench.recording import PRETEND_PRICES
    from taskpilot_obs.compare.bench.tasks import BUILT_IN

    options = asked.options | {"retries": 0, "name": "demo"}
    with pretend_providers(seed=seed) as server:
        arms, tasks = [*asked.arms, *server.specs()], asked.tasks or [*BUILT_IN]
        yield _Asked(arms, tasks, options, [*asked.prices, PRETEND_PRICES])


def _rate(text: str) -> float:
    number, _, unit = text.partition("/")
    per = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3_600}.get(unit)
    try:
        return float(number) / per  # type: ignore[operator]  # None is caught
    except (ValueError, TypeError):
        raise typer.BadParameter(f"given {text!r}; write 2/s, 30/min or 100/h", param_hint="--rate") from None


def _objective(text: str) -> tuple[str, float]:
    name, _, most = text.partition(":")
    try:
        return name, float(most)
    except ValueError:
        raise typer.BadParameter(f"given {text!r}; write request_latency:2000", param_hint="--goodput") from None


def _plan(asked: _Asked, out: Path | None, resume: Path | None) -> tuple[Plan, Path]:
    """The plan, and the folder that keeps it: of the run that is resumed, or a new one."""
    from taskpilot_obs.compare.bench import made_plan
    from taskpilot_obs.compare.bench.keeping import Folder

    if resume is not None:
        plan = Folder(resume).read_plan()
        cap = asked.options["max_cost_usd"]
        return (plan if cap is None else made_plan(**{**plan.model_dump(), "max_cost_usd": cap})), resume
    if not asked.arms:
        raise typer.BadParameter("give --providers, such as openai/gpt-4o-mini, or --demo")
    plan = made_plan(arms=tuple(asked.arms), tasks=tuple(asked.tasks or ("simple",)), **asked.options)
    return plan, out or RESULTS / plan.run_id


def _session(plan: Plan, folder: Path, store: str | None, prices: Sequence[Path]) -> Session:
    """The session, whose recorder is that of the whole process: an arm's own code records with it too."""
    from taskpilot_obs.compare.bench import Session
    from taskpilot_obs.compare.bench.recording import recorder_options
    from taskpilot_obs.config import configure

    return Session(
        plan,
        make_recorder=lambda left: configure(**recorder_options(left, store=store, prices=prices)),
        out=folder,
        store=store,
    )


def _go(session: Session, mode: Mode) -> int:
    from taskpilot_obs.cli._bench_view import estimate_table, report_view, truths_view  # needs scipy

    if not mode.as_json or mode.dry_run:
        estimates = _estimates(session, with_failed=mode.dry_run)
        show(estimate_table(estimates))
        for name, why in session.failed.items():
            complain(f"{name} is not asked: {why}")
        if mode.dry_run:
            return FAILED if mode.strict and session.failed else 0
        _ask_about(estimates, session.plan, yes=mode.yes)
    try:
        with _bars(session) as bars:
            result = session.run([bars])
    except KeyboardInterrupt:
        complain(f"interrupted; go on with: taskpilot-obs bench --resume {_folder(session)}")
        return INTERRUPTED
    _write(session, result)
    if mode.as_json:
        print_json(result.report.model_dump_json(indent=2))
    else:
        show(*report_view(result.report))
        if mode.demo:
            show(truths_view(result.report))
        say(f"results: {_folder(session)} (report.html, report.md, report.json, calls.jsonl)")
    return FAILED if mode.strict and _has_failed(result) else 0


def _estimates(session: Session, *, with_failed: bool) -> tuple[Estimate, ...]:
    """What the arms take; a dry run needs no keys, so it prices those that lack one too."""
    from taskpilot_obs.compare.bench.estimate import estimated
    from taskpilot_obs.compare.bench.plan import planned_calls

    prices = session.recorder.runtime.prices
    if not with_failed:
        return estimated(session.calls, session.arms, prices)
    arms = {**session.arms, **session.unconnected}
    return estimated(planned_calls(session.plan, [*arms], session.tasks), arms, prices)


def _ask_about(estimates: Sequence[Estimate], plan: Plan, *, yes: bool) -> None:
    """Ask before a run that may cost more than its cap, or whose cost is not known; the cap holds in either case."""
    if plan.max_cost_usd is None or yes:
        return
    most = sum((each.cost for each in estimates if each.cost is not None), Decimal(0))
    if most <= plan.max_cost_usd:
        return
    say(f"the plan may cost up to {usd(most)}, more than --max-cost {usd(plan.max_cost_usd)}, at which it would stop")
    if not sys.stdin.isatty():
        say("going on would need an answer here; give --yes, fewer --iterations or --items, or a higher --max-cost")
        raise typer.Exit(2)
    typer.confirm("go on?", abort=True)


@contextmanager
def _bars(session: Session) -> Iterator[Bars]:
    from taskpilot_obs.cli._bench_view import Bars

    with Bars(console(stderr=True), session.calls) as bars:
        yield bars


def _folder(session: Session) -> Path:
    return session.folder.path if session.folder is not None else _unkept()


def _unkept() -> NoReturn:
    raise AssertionError("the command keeps every run in a folder")


def _write(session: Session, result: Result) -> None:
    from taskpilot_obs.compare.bench.documents import as_markdown, as_page

    if session.folder is None:
        return
    session.folder.write("report.json", result.report.model_dump_json(indent=2))
    session.folder.write("report.md", as_markdown(result.report))
    session.folder.write("report.html", as_page(result.report, result.calls))


def _has_failed(result: Result) -> bool:
    arms = result.report.arms.values()
    return bool(result.report.failed_arms) or any(not arm.request_count for arm in arms)
