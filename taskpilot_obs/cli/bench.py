"""`taskpilot-obs bench`: the same tasks for several models or agents, measured and compared."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand

from taskpilot_obs._support.figures import usd
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

Providers = Annotated[
    list[str] | None,
    typer.Option("--providers", help="[NAME=]PROVIDER/MODEL[@BASE_URL] or [NAME=]MODULE:FUNCTION, one or more."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--tasks", help="simple, reasoning, navigation or a JSONL file, one or more.  [default: simple]"),
]
Items = Annotated[int | None, typer.Option("--items", min=1, help="Only the first items of each task.")]
Iterations = Annotated[
    int | None, typer.Option("--iterations", min=1, help="How often each arm gets each item.  [default: 5]")
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Closed loop: calls at a time.  [default: 4]")
]
Rate = Annotated[str | None, typer.Option("--rate", help="Open loop instead: calls per second, such as 2/s.")]
Arrivals = Annotated[str, typer.Option("--arrivals", help="Of an open loop: poisson or constant.")]
WarmUp = Annotated[int, typer.Option("--warm-up", min=0, help="Calls of each arm before the measurement.")]
MaxCost = Annotated[str | None, typer.Option("--max-cost", help="USD at most; a budget refuses what would exceed it.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the order and the arrivals.")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="Attempts beyond the first.")]
RetriesCount = Annotated[
    bool, typer.Option("--retries-in-latency/--retries-out-of-latency", help="Whether latency begins before retries.")
]
VaryPrefix = Annotated[bool, typer.Option("--vary-prefix", help="Keep the providers' prompt caches from answering.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds that a call may take.")]
Goodput = Annotated[
    list[str] | None,
    typer.Option("--goodput", help="MEASURE:MS that a good call keeps, such as request_latency:2000."),
]
Prices = Annotated[list[Path] | None, typer.Option("--prices", help="A file of your own prices.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the results.  [default: taskpilot-bench/RUN]")]
Resume = Annotated[Path | None, typer.Option("--resume", help="Go on with the run in this folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens and cost by arm, and ask nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask where the plan may cost more than --max-cost.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 if an arm could not be asked, or never succeeded.")]
Demo = Annotated[bool, typer.Option("--demo", help="Compare three pretend providers on this machine; no key.")]


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
    app.command(name="bench", cls=ManyValues)(bench)


def bench(  # noqa: PLR0913  a command line has as many options as it has
    *,
    providers: Providers = None,
    tasks: Tasks = None,
    items: Items = None,
    iterations: Iterations = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    arrivals: Arrivals = "poisson",
    warm_up: WarmUp = 1,
    max_cost: MaxCost = None,
    seed: Seed = 0,
    retries: Retries = 2,
    retries_in_latency: RetriesCount = True,
    vary_prefix: VaryPrefix = False,
    timeout: Timeout = 120.0,
    goodput: Goodput = None,
    prices: Prices = None,
    out: Out = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    strict: Strict = False,
    demo: Demo = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Ask several models or agents the same tasks in turn, and compare correctness, latency and cost."""
    options = {
        "items": items,
        "iterations": iterations or (1 if demo else 5),
        "concurrency": concurrency or (8 if demo else 4),
        "rate_per_s": None if rate is None else _rate(rate),
        "arrivals": arrivals,
        "warm_up": warm_up,
        "max_cost_usd": max_cost,
        "seed": seed,
        "retries": retries,
        "retries_in_latency": retries_in_latency,
        "vary_prefix": vary_prefix,
        "timeout_s": timeout,
        "objectives": dict(map(_objective, goodput or ())),
    }
    asked = _Asked(providers or [], tasks, options, prices or [])
    with explained(), _with_demo(asked, seed) if demo else nullcontext(asked) as asked:
        plan, folder = _plan(asked, out, resume)
        with closing(_session(plan, folder, store, asked.prices)) as session:
            code = _go(session, dry_run=dry_run, yes=yes, strict=strict, as_json=as_json, demo=demo)
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


def _go(session: Session, *, dry_run: bool, yes: bool, strict: bool, as_json: bool, demo: bool) -> int:
    from taskpilot_obs.cli._bench_view import estimate_table, report_view, truths_view  # needs scipy

    if not as_json or dry_run:
        estimates = _estimates(session, with_failed=dry_run)
        show(estimate_table(estimates))
        for name, why in session.failed.items():
            complain(f"{name} is not asked: {why}")
        if dry_run:
            return FAILED if strict and session.failed else 0
        _ask_about(estimates, session.plan, yes=yes)
    try:
        with _bars(session) as bars:
            result = session.run([bars])
    except KeyboardInterrupt:
        complain(f"interrupted; go on with: taskpilot-obs bench --resume {_folder(session)}")
        return INTERRUPTED
    _write(session, result)
    if as_json:
        print_json(result.report.model_dump_json(indent=2))
    else:
        show(*report_view(result.report))
        if demo:
            show(truths_view(result.report))
        say(f"results: {_folder(session)} (report.html, report.md, report.json, calls.jsonl)")
    return FAILED if strict and _has_failed(result) else 0


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
