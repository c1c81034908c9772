"""What Python itself lets people expect of a decorated function, a pickled one and an imported library."""

from __future__ import annotations

import asyncio
import functools
import gzip
import inspect
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.request import Request, urlopen

import cloudpickle  # type: ignore[import-untyped]  # has no types
import pytest
from prometheus_client import CollectorRegistry, Counter

from taskpilot_obs import observe_agent, observe_llm, observe_tool, observe_workflow, track_workflow
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.prometheus.reading import samples
from taskpilot_obs.exposition import start_metrics_server
from taskpilot_obs.golden_signals.from_url import signals_from_url
from taskpilot_obs.testing import capture_invocations, fresh_recorder

ROOT = Path(__file__).parent.parent


def plain(a: int, b: int = 2, *, c: int = 3) -> int:
    return a + b + c


async def coroutine(a: int, b: int = 2, *, c: int = 3) -> int:
    return a + b + c


def generator(a: int, b: int = 2, *, c: int = 3) -> Iterator[int]:
    yield a + b + c


async def async_generator(a: int, b: int = 2, *, c: int = 3) -> AsyncIterator[int]:
    yield a + b + c


KINDS = [plain, coroutine, generator, async_generator]


async def _first(items: AsyncIterator[Any]) -> Any:
    async for item in items:
        return item
    return None


def result_of(value: Any) -> Any:
    """What a call comes to, of whatever kind it is."""
    if inspect.iscoroutine(value):
        return asyncio.run(value)
    if inspect.isgenerator(value):
        return next(value)
    if inspect.isasyncgen(value):
        return asyncio.run(_first(value))
    return value


@pytest.mark.parametrize("function", KINDS, ids=lambda function: function.__name__)
def test_a_decorated_function_shows_the_signature_of_its_own(function: Callable[..., Any]) -> None:
    """Defaults, keyword defaults, and both ways to ask for the arguments are those of the function."""
    observed = observe_tool(function)
    assert observed.__defaults__ == (2,)
    assert observed.__kwdefaults__ == {"c": 3}
    assert inspect.getfullargspec(observed) == inspect.getfullargspec(function)
    assert inspect.signature(observed) == inspect.signature(function)
    assert inspect.isfunction(observed)
    assert result_of(observed(1)) == 6
    with pytest.raises(TypeError):
        result_of(observed())


@pytest.mark.parametrize("name", ["run", "inner", "self", "args"])
def test_no_argument_name_is_taken(name: str) -> None:
    """A keyword argument may have any name, whatever the wrapper calls its own."""
    for function in (lambda **given: given, _async_given, _given):
        assert result_of(observe_tool("t")(function)(**{name: 1})) == {name: 1}


async def _async_given(**given: int) -> dict[str, int]:
    return given


def _given(**given: int) -> Iterator[dict[str, int]]:
    yield given


def test_methods_of_what_is_wrapped_stay_reachable() -> None:
    """`cache_info` and `cache_clear` of `lru_cache`, `delay` of a task queue's task."""

    @observe_tool("cached")
    @functools.lru_cache
    def cached(x: int) -> int:
        return x

    assert [cached(1), cached(1)] == [1, 1]
    assert cached.cache_info().hits == 1
    cached.cache_clear()
    assert cached.cache_info().currsize == 0

    class Task:
        retries = property(lambda _: pytest.fail("a property was read"))

        def __call__(self) -> str:
            return "ran"

        def delay(self) -> str:
            return "queued"

    task: Any = observe_workflow("task")(Task())
    assert (task(), task.delay()) == ("ran", "queued")


def _add(a: int, b: int) -> int:
    return a + b


def test_a_real_celery_task_stays_a_task() -> None:
    """`delay` and `s` of a Celery task work behind the decorator."""
    from celery import Celery

    app = Celery(set_as_current=False)
    app.conf.task_always_eager = True
    add: Any = observe_workflow("add")(app.task(name="add")(_add))
    assert add.delay(1, 2).get() == 3
    assert add.s(1, 2).task == "add"
    assert add(1, 2) == 3


def test_a_generator_based_coroutine_can_be_awaited() -> None:
    """What `types.coroutine` made is awaited as before, and its run has its whole duration."""

    @observe_agent("old style")
    @types.coroutine
    def old_style() -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        return 5

    async def main() -> int:
        return await old_style()

    with capture_invocations() as seen:
        assert asyncio.run(main()) == 5
        assert [run.status for run in seen] == ["success"]


def test_the_model_may_stand_alone() -> None:
    """`@observe_llm("gpt-4o")` names the model, as the other decorators name what they record."""

    @observe_llm("gpt-4o")
    def call() -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}

    with capture_invocations() as seen:
        call()
        assert (seen[0].request_model, seen[0].provider) == ("gpt-4o", "openai")


def _mocked() -> MagicMock:
    return MagicMock()


def test_a_mock_names_no_provider() -> None:
    """A `MagicMock` answers every question; its answers are not taken for provider, model or usage."""
    with capture_invocations() as seen:
        observe_llm(MagicMock(return_value=MagicMock()))()
        observe_llm(_mocked)()
        for run in seen:
            assert (run.provider, run.response_model, run.usage) == (None, None, None)


# Pickling


@observe_tool
def decorated(a: int) -> int:
    return a


@pytest.mark.parametrize("function", KINDS, ids=lambda function: function.__name__)
def test_decorated_functions_travel_by_value(function: Callable[..., Any]) -> None:
    """Cloudpickle takes a decorated function to another process, where it works and is recorded."""
    travelling = cloudpickle.dumps(observe_tool("far", attributes={"step_id": "s"})(function))
    program = (
        "import pickle, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_python_expectations import result_of\n"
        "from taskpilot_obs.testing import capture_invocations\n"
        "observed = pickle.load(sys.stdin.buffer)\n"
        "with capture_invocations() as seen:\n"
        "    print(result_of(observed(1)), seen[0].name, dict(seen[0].attributes))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)], input=travelling, capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.stdout.split(maxsplit=2) == [b"6", b"far", b"{'step_id': 's'}\n"]


def test_a_decorated_function_pickles_by_name() -> None:
    """Plain pickle takes it by its name, as it takes any function."""
    assert pickle.loads(pickle.dumps(decorated)) is decorated  # noqa: S301  made here


def test_handlers_and_models_that_hold_them_pickle() -> None:
    """The copy records by the default recorder of where it is."""
    from langchain_core.language_models import FakeListChatModel
    from taskpilot_obs_langchain import ObservabilityHandler

    model = FakeListChatModel(responses=["yes"], callbacks=[ObservabilityHandler(root="agent", name="planner")])
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301  made here
    with capture_invocations() as seen:
        assert copy.invoke("?").content == "yes"
        assert len(seen) == 1


# Names of metrics


def test_a_namespace_stands_before_every_family() -> None:
    """`configure(namespace="acme")` renames what is exposed, and the golden signals of it are the same."""
    registry = CollectorRegistry()
    with fresh_recorder(registry=registry, namespace="acme") as recorder:
        with track_workflow("w", recorder=recorder):
            pass
        names = {sample.name for family in registry.collect() for sample in family.samples}
        assert all(name.startswith("acme_") for name in names)
        assert "acme_workflow_runs_total" in names
        assert "workflow_runs_total" in {sample.name for sample in samples(registry)}
        with start_metrics_server(0, registry=registry) as server:
            assert signals_from_url(server.url).runs.success == 1


def test_two_namespaces_share_a_registry() -> None:
    """Two recorders with prefixes of their own do not clash, and a third without one does not either."""
    registry = CollectorRegistry()
    with fresh_recorder(registry=registry, namespace="one"), fresh_recorder(registry=registry, namespace="two"):
        names = {family.name for family in registry.collect()}
    assert {"one_workflow_runs", "two_workflow_runs"} <= names


@pytest.mark.parametrize("namespace", ["1st", "a-b", "ä", "a b"])
def test_a_namespace_that_prometheus_refuses_is_refused(namespace: str) -> None:
    """The error names the option."""
    with pytest.raises(ConfigurationError, match="namespace"), fresh_recorder(namespace=namespace):
        pass


def test_a_clash_of_names_says_what_to_do() -> None:
    """A metric of the application with one of our names is an error at `configure()`, which a namespace solves."""
    registry = CollectorRegistry()
    Counter("llm_requests", "Mine.", registry=registry)
    with pytest.raises(ConfigurationError, match="namespace="), fresh_recorder(registry=registry):
        pass
    with fresh_recorder(registry=registry, namespace="agents"):
        pass


def test_an_application_that_comes_second_is_told_whose_the_name_is() -> None:
    """prometheus_client refuses the application's metric with the name that clashes; nothing is overwritten."""
    registry = CollectorRegistry()
    with fresh_recorder(registry=registry), pytest.raises(ValueError, match="llm_requests"):
        Counter("llm_requests", "Mine.", registry=registry)


def test_a_library_that_is_imported_twice_goes_on() -> None:
    """A reloading server imports everything again: metrics begin at 0, and nothing clashes."""
    program = """
import sys
from taskpilot_obs import observe_workflow
observe_workflow("w")(lambda: None)()
for name in [name for name in sys.modules if name.startswith("taskpilot_obs")]:
    del sys.modules[name]
from taskpilot_obs import golden_signals, observe_workflow
observe_workflow("w")(lambda: None)()
print(golden_signals().runs.success)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("1.0\n", 0)
    assert "imported a second time" in done.stderr


# What /metrics understands


def _get(url: str, **headers: str) -> tuple[bytes, Any]:
    with urlopen(Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})) as answer:
        return answer.read(), answer.headers


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False), ("gzip;q=0.000", False), ("identity", False)],
)
def test_metrics_are_compressed_for_those_who_take_it(accepted: str, *, zipped: bool) -> None:
    """`Accept-Encoding` decides, a weight of 0 included, and caches are told so."""
    registry = CollectorRegistry()
    Counter("mine", "Mine.", registry=registry).inc()
    with start_metrics_server(0, registry=registry) as server:
        body, headers = _get(server.url, Accept_Encoding=accepted)
    assert (headers["Content-Encoding"] == "gzip") is zipped
    assert "Accept-Encoding" in headers["Vary"]
    assert b"mine_total 1.0" in (gzip.decompress(body) if zipped else body)


def test_some_metrics_can_be_asked_for() -> None:
    """`?name[]=` answers those samples alone, as prometheus_client's own server does."""
    registry = CollectorRegistry()
    Counter("mine", "Mine.", registry=registry).inc()
    Counter("other", "Other.", registry=registry).inc()
    with start_metrics_server(0, registry=registry) as server:
        body, _ = _get(f"{server.url}?name[]=mine_total&name[]=nothing")
    assert b"mine_total 1.0" in body
    assert b"other" not in body


# Importing


def test_the_library_works_from_a_zip(tmp_path: Path) -> None:
    """Packed into a zip file on the path, as some platforms deploy, it records and answers."""
    archive = tmp_path / "library.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in (ROOT / "taskpilot_obs").rglob("*.py"):
            zipped.write(path, path.relative_to(ROOT))
    program = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "import taskpilot_obs\n"
        "from taskpilot_obs import observe_workflow, golden_signals\n"
        "observe_workflow('w')(lambda: None)()\n"
        "print(golden_signals().runs.success, taskpilot_obs.__file__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.split() == ["1.0", str(archive / "taskpilot_obs" / "__init__.py")]
