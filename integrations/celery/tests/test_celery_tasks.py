"""Celery's own worker and broker, in memory: requests travel with tasks, and tasks are workflows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery, chain, signals
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from taskpilot_obs_celery import install

from taskpilot_obs import configure, get_request_id, observe_agent, request_context, track_llm
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError
from taskpilot_obs.integration import current_scope
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import Captured, capture_invocations

numbers = itertools.count()


def _leave_logging_alone(**_: object) -> None:
    """Stand in for the logging of the application: a worker that has none sets the level of the root logger."""


@pytest.fixture
def app() -> Iterator[Celery]:
    """An application whose broker and results are in memory, with the integration."""
    made = Celery(f"shop-{next(numbers)}", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.update(task_default_queue=made.main, broker_connection_retry_on_startup=True)
    install()
    signals.setup_logging.connect(_leave_logging_alone)
    yield made
    signals.setup_logging.disconnect(_leave_logging_alone)
    for signal in (signals.before_task_publish, signals.task_prerun, signals.task_postrun):
        for name in ("send", "begin", "end"):
            signal.disconnect(dispatch_uid=f"taskpilot_obs.{name}")


@observe_agent("Planner")
def plan() -> tuple[str | None, ...]:
    scope = current_scope.get()
    return (None,) if scope is None else tuple(scope[:4])


def work(app: Celery, function: Any, **options: Any) -> Any:
    return app.task(name=f"shop.{function.__name__}", shared=False, **options)(function)


def test_the_request_travels_with_the_task(app: Celery, seen: Captured[Invocation]) -> None:
    """Request ID, tenant, user and session are those of the code that sent the task, through a broker and a worker."""

    def planned() -> Any:
        return plan()

    task = work(app, planned)
    with start_worker(app, perform_ping_check=False, pool="solo"):
        with request_context("req-1", tenant_id="acme inc", user_id="ann", session_id="s-1"):
            sent = task.delay()
        assert sent.get(timeout=30) == ["req-1", "acme inc", "ann", "s-1"]
        alone = task.delay().get(timeout=30)
    assert alone == [None]
    runs = [(run.operation.value, run.name, run.request_id, run.tenant, run.parent_id is None) for run in seen][:2]
    assert runs == [
        ("invoke_agent", "Planner", "req-1", "acme inc", False),
        ("invoke_workflow", "shop.planned", "req-1", "acme inc", True),
    ]
    assert dict(seen[1].attributes) == {"celery.task_id": sent.id, "celery.retries": 0}
    assert len({run.request_id for run in seen}) == 2


def test_tasks_that_tasks_send_belong_to_the_request(app: Celery, seen: Captured[Invocation]) -> None:
    """Steps of a chain, and what a task sends itself, go on with the request."""

    def second(before: Any = None) -> Any:
        return [before, get_request_id()]

    task = work(app, second)
    with start_worker(app, perform_ping_check=False, pool="solo"):
        with request_context("req-2"):
            sent = chain(task.s(), task.s(), task.s()).apply_async()
        assert sent.get(timeout=30) == [[[None, "req-2"], "req-2"], "req-2"]
    assert [run.request_id for run in seen] == ["req-2"] * 3


def test_each_attempt_is_a_run(app: Celery, seen: Captured[Invocation]) -> None:
    """An attempt that is retried is interrupted; the next one is a run of the same request, numbered."""

    def flaky(self: Any) -> str:
        if self.request.retries < 2:
            raise self.retry(countdown=0, exc=OSError("away"))
        return "done"

    task = work(app, flaky, bind=True, max_retries=3)
    with start_worker(app, perform_ping_check=False, pool="solo"):
        with request_context("req-3"):
            sent = task.delay()
        assert sent.get(timeout=30) == "done"
    found = [(run.status.value, run.attributes["celery.retries"], run.request_id) for run in seen]
    assert found == [("interrupted", 0, "req-3"), ("interrupted", 1, "req-3"), ("success", 2, "req-3")]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "error"),
        (LookupError("expected"), "success"),
        (Ignore(), "cancelled"),
        (Reject(requeue=False), "cancelled"),
        (SoftTimeLimitExceeded(), "timeout"),
        (TimeoutError(), "timeout"),
    ],
)
def test_the_exception_decides_the_status(
    app: Celery, seen: Captured[Invocation], error: Exception, status: str
) -> None:
    """A task fails as its exception says; what Celery's `throws` expects is not a failure."""

    def failing() -> None:
        raise error

    result = work(app, failing, throws=(LookupError,)).apply()
    assert result.state != "SUCCESS"
    assert [(run.name, run.status.value) for run in seen] == [("shop.failing", status)]


def test_what_ends_the_process_ends_the_run(app: Celery, seen: Captured[Invocation]) -> None:
    """SystemExit passes, and the run that it ended is cancelled."""

    def leaving() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        work(app, leaving).apply()
    assert [run.status.value for run in seen] == ["cancelled"]


def test_eager_tasks_nest_in_the_caller(app: Celery, seen: Captured[Invocation]) -> None:
    """A task that runs at once is a run beneath its caller's, and leaves the caller's request current."""

    def inner() -> Any:
        return get_request_id()

    task = work(app, inner)

    @observe_agent("Caller")
    def caller() -> Any:
        return task.apply().get(), get_request_id()

    with request_context("req-4"):
        assert caller() == ("req-4", "req-4")
    below, above = seen
    assert (below.name, below.parent_id) == ("shop.inner", above.invocation_id)


def test_a_tenants_budget_refuses_its_tasks(app: Celery) -> None:
    """The budget of the tenant that sent the task is asked in the worker, and another tenant's goes on."""
    configure(budgets=[Budget("each tenant", limit_requests=1, period="day", scope={"tenant": "*"}, action="enforce")])

    def asking() -> str:
        with track_llm(provider="openai", model="gpt-4o-mini") as call:
            call.record_usage(input_tokens=1, output_tokens=1)
        return "done"

    task = work(app, asking)
    with capture_invocations() as seen, start_worker(app, perform_ping_check=False, pool="solo"):
        sent = []
        for tenant in ("acme", "acme", "globex"):
            with request_context(tenant_id=tenant):
                sent.append(task.delay())
        sent[0].get(timeout=30)
        with pytest.raises(Exception, match="used up"):  # the result backend keeps the text
            sent[1].get(timeout=30)
        sent[2].get(timeout=30)
    tasks = [(run.tenant, run.status.value) for run in seen if run.name == "shop.asking"]
    assert tasks == [("acme", "success"), ("acme", "blocked"), ("globex", "success")]


def test_tasks_need_not_be_workflows(app: Celery, seen: Captured[Invocation]) -> None:
    """With `workflows=False`, a task is not a run, but its request is passed on."""
    for name in ("begin", "end"):
        for signal in (signals.task_prerun, signals.task_postrun):
            signal.disconnect(dispatch_uid=f"taskpilot_obs.{name}")
    install(workflows=False)

    def planned() -> Any:
        return plan()

    task = work(app, planned)
    with start_worker(app, perform_ping_check=False, pool="solo"):
        with request_context("req-5"):
            sent = task.delay()
        assert sent.get(timeout=30)[0] == "req-5"
    assert [run.name for run in seen] == ["Planner"]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_refusal_reaches_whoever_waits_for_the_result(app: Celery, serializer: str) -> None:
    """The client of a refused task gets our exception with its fields, whatever the result back end writes."""

    def refused() -> None:
        with track_llm(model="gpt-4o", input_tokens=10, max_output_tokens=1):
            pass

    app.conf.update(result_serializer=serializer, accept_content=["json", "pickle"])
    task = work(app, refused)
    configure(budgets=[Budget("team", limit_tokens=5, action="enforce", scope={"tenant": "*"})])
    with (
        start_worker(app, perform_ping_check=False, pool="solo"),
        request_context("req-1", tenant_id="acme"),
        pytest.raises(BudgetExceededError, match="needed 11 tokens") as caught,
    ):
        task.delay().get(timeout=30)
    error = caught.value
    assert (error.budget, error.limit, error.needed, error.unit) == ("team", Decimal(5), Decimal(11), "tokens")
    assert (error.tenant, error.scope, error.request_id) == ("acme", {"tenant": "acme"}, "req-1")
    assert error.resets_at is not None
    assert error.resets_at > datetime.now(UTC)
