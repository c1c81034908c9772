"""`instrument()` finds and turns on what is installed, says what it could not do, and undoes it; `run` and `doctor`."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taskpilot_obs.exceptions import ConfigurationError

ROOT = Path(__file__).parents[3]
SETUP = """
from _provider import serving
from taskpilot_obs.testing import capture_invocations
from taskpilot_obs_opentelemetry import State, instrument, uninstrument
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
def ask(url):
    import openai
    with openai.OpenAI(api_key="x", base_url=f"{url}/v1") as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "secret"}])
"""


def alone(code: str, *command: str, **environ: str) -> str:
    """Run code in a process of its own, because instrumentation is global to one; returns what it prints."""
    paths = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    given = [*command, sys.executable, "-W", "ignore", "-c", SETUP + code]
    environ = {**os.environ, "PYTHONPATH": paths, **environ}
    done = subprocess.run(given, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_line_observes_a_client() -> None:
    """After `instrument()` the calls of an SDK are recorded, without content; after `uninstrument()` they are not."""
    shown = alone("""
with serving() as server, capture_invocations() as seen:
    found = instrument("openai")
    assert instrument("openai") == found
    spans = []
    class Keep:
        def on_start(self, span, parent_context=None): pass
        def _on_ending(self, span): pass
        def on_end(self, span): spans.append(span)
        def shutdown(self): pass
    trace.get_tracer_provider().add_span_processor(Keep())
    ask(server.url)
    assert "secret" not in str([(span.attributes, span.events) for span in spans])
    uninstrument()
    uninstrument()
    ask(server.url)
    instrument("openai")
    ask(server.url)
    runs = [(run.name, run.usage.input_tokens, run.usage.cache_read_tokens, str(run.cost)) for run in seen]
print([str(one) for one in found], runs)
""")
    call = "('gpt-4o-mini', 100, 40, '0.000024000')"
    assert shown.startswith("['openai 3.")
    assert "on, by opentelemetry-instrumentation-genai-openai" in shown
    assert shown.rstrip().endswith(f"[{call}, {call}]")


def test_what_is_not_imported_waits_for_its_import() -> None:
    """`instrument()` imports no SDK and no framework; each is turned on behind the application's own import of it."""
    shown = alone("""
import sys
from importlib.util import find_spec
first = instrument("openai", "pydantic_ai")
assert instrument("openai", "pydantic_ai") == first
assert not {"openai", "pydantic_ai", "opentelemetry.instrumentation.genai.openai"} & sys.modules.keys()
assert find_spec("openai").name == "openai"  # asking for it is not importing it
with serving() as server, capture_invocations() as seen:
    ask(server.url)
    assert type(sys.modules["openai"].__spec__.loader).__name__ == "SourceFileLoader"  # its own, put back in place
    import pydantic_ai
    print(pydantic_ai.Agent._instrument_default.include_content)
    uninstrument()
    ask(server.url)
    print(len(seen), [one.state.value for one in first], first[0].text)
print(instrument("openai")[0].text)
""")
    assert shown.splitlines() == [
        "False",
        "1 ['on', 'on'] by opentelemetry-instrumentation-genai-openai, once it is imported",
        "by opentelemetry-instrumentation-genai-openai",
    ]


def test_finders_of_other_kinds_are_passed_by() -> None:
    """An import that is waited for goes past a finder of the old kind, which has no `find_spec`."""
    shown = alone("""
import sys
class Old:
    def find_module(self, name, path=None): return None
sys.meta_path.insert(0, Old())
instrument("openai")
with serving() as server, capture_invocations() as seen:
    ask(server.url)
    print(len(seen))
""")
    assert shown.split() == ["1"]


def test_a_finder_that_asks_all_others_is_asked_once() -> None:
    """A finder that asks every finder, this library's included, leads to no endless search; the import is seen."""
    shown = alone("""
import sys
class Asking:
    def find_spec(self, name, path=None, target=None):
        others = [other for other in sys.meta_path if other is not self]
        return next((spec for other in others if (spec := other.find_spec(name, path, target))), None)
instrument("openai")
sys.meta_path.insert(0, Asking())
with serving() as server, capture_invocations() as seen:
    ask(server.url)
    print(len(seen))
""")
    assert shown.split() == ["1"]


def test_readers_of_the_loader_work_before_the_import(tmp_path: Path) -> None:
    """`runpy`, `pkgutil` and `copy` have the loader of a module that is waited for as they have any other."""
    (tmp_path / "awaited_module.py").write_text("shown = __name__")
    shown = alone(f"""
import copy, pkgutil, runpy, sys
from importlib.util import find_spec
from taskpilot_obs_opentelemetry.importing import when_imported
sys.path.insert(0, {str(tmp_path)!r})
when_imported("awaited_module", lambda: print("imported"))
copy.copy(find_spec("awaited_module").loader)
print(runpy.run_module("awaited_module", run_name="here")["shown"])
print(pkgutil.get_data("awaited_module", "awaited_module.py").decode())
""")
    assert shown.splitlines() == ["here", "imported", "shown = __name__"]


def test_an_import_that_escaped_is_made_up_for() -> None:
    """A module that came in without the finders is turned on at the next call of `instrument`."""
    shown = alone("""
import sys
import openai
kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "openai"}
print(instrument("openai")[0].text)
sys.modules.update(kept)
print(instrument("openai")[0].text)
with serving() as server, capture_invocations() as seen:
    ask(server.url)
    print(len(seen))
""")
    assert shown.splitlines() == [
        "by opentelemetry-instrumentation-genai-openai, once it is imported",
        "by opentelemetry-instrumentation-genai-openai",
        "1",
    ]


def test_what_is_turned_on_while_it_is_undone_is_undone() -> None:
    """An import that ends behind `uninstrument()`, having begun before it, leaves the SDK as it was."""
    shown = alone("""
from taskpilot_obs_opentelemetry import instrumenting
real = instrumenting._switched
def switched(target):
    uninstrument()
    return real(target)
instrumenting._switched = switched
instrument("openai")
with serving() as server, capture_invocations() as seen:
    ask(server.url)
    print(len(seen), instrumenting._installed.undo)
    instrumenting._switched = real
    instrument("openai")
    ask(server.url)
    print(len(seen))
""")
    assert shown.splitlines() == ["0 {}", "1"]


def test_what_waits_is_undone() -> None:
    """After `uninstrument()` an import turns nothing on, and nothing is left in the import system."""
    shown = alone("""
import sys
finders = list(sys.meta_path)
instrument("openai")
uninstrument()
assert sys.meta_path == finders
with serving() as server, capture_invocations() as seen:
    ask(server.url)
    print(len(seen))
""")
    assert shown.split() == ["0"]


def test_an_instrumentor_that_fails_late_is_reported() -> None:
    """What cannot be turned on behind an import is logged as a warning; the import succeeds."""
    shown = alone("""
import logging
from taskpilot_obs_opentelemetry import instrumenting
instrumenting.load_instrumentor = lambda name: (_ for _ in ()).throw(LookupError("gone"))
class Keep(logging.Handler):
    def emit(self, record): print(record.levelname, record.getMessage())
logging.getLogger("taskpilot_obs").addHandler(Keep())
instrument("openai")
import openai
""")
    assert "WARNING instrument: openai" in shown
    assert "refused, by opentelemetry-instrumentation-genai-openai: LookupError: gone" in shown


def test_it_joins_the_provider_of_the_application() -> None:
    """Exporters go on to get the sample; all calls are recorded. A provider without processors is refused."""
    shown = alone("""
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
exporter = InMemorySpanExporter()
provider = TracerProvider(sampler=ALWAYS_OFF)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with serving() as server, capture_invocations() as seen:
    instrument("openai")
    ask(server.url)
    uninstrument()
    print(len(seen), len(exporter.get_finished_spans()), provider.sampler.active)
""")
    assert shown.split() == ["1", "0", "False"]


def test_it_is_undone_again_and_again() -> None:
    """Each time the sampler drops spans again, and the environment is as before; what the application set stays."""
    shown = alone(
        """
import os
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
provider = TracerProvider(sampler=ALWAYS_OFF)
trace.set_tracer_provider(provider)
before = dict(os.environ)
for _ in range(3):
    instrument("openai")
    tracer = trace.get_tracer("an.application")
    recorded = tracer.start_span("a").is_recording()
    print(recorded, os.environ["TRACELOOP_TRACE_CONTENT"], os.environ["OPENINFERENCE_HIDE_INPUTS"])
    uninstrument()
    print(tracer.start_span("b").is_recording(), dict(os.environ) == before)
""",
        TRACELOOP_TRACE_CONTENT="true",
    )
    assert shown.splitlines() == ["True true true", "False True"] * 3


def test_tracers_that_exist_already_are_followed() -> None:
    """A framework that took its tracer from a provider with a sampler, before `instrument`, is recorded whole."""
    shown = alone("""
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
exporter = InMemorySpanExporter()
provider = TracerProvider(sampler=TraceIdRatioBased(0.1))
provider.add_span_processor(SimpleSpanProcessor(exporter))
early = trace.get_tracer("a.framework")
trace.set_tracer_provider(provider)
tracers = [early, trace.get_tracer("another.framework")]
attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
tracers[0].start_span("chat", attributes=attributes).end()
with capture_invocations() as seen:
    instrument("openai")
    for _ in range(50):
        for tracer in tracers:
            tracer.start_span("chat", attributes=attributes).end()
    print(len(seen), len(exporter.get_finished_spans()) < 50)
""")
    assert shown.split() == ["100", "True"]


def test_a_sampler_of_the_application_stays() -> None:
    """`RecordAll` that the application itself has set goes on to record what another processor of its own needs."""
    shown = alone("""
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from taskpilot_obs_opentelemetry import RecordAll
provider = TracerProvider(sampler=RecordAll(ALWAYS_OFF))
trace.set_tracer_provider(provider)
instrument("openai")
uninstrument()
print(trace.get_tracer("an.application").start_span("a").is_recording())
""")
    assert shown.split() == ["True"]


def test_what_cannot_be_done_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Unknown names are refused, known ones that are not installed are named, those that need an action say which."""
    from taskpilot_obs_opentelemetry import State, instrument, survey, uninstrument

    with pytest.raises(ConfigurationError, match="unknown: opnai; known are ag2, agent_framework"):
        instrument("opnai")
    by_name = {one.name: one for one in survey("crewai", "google_genai", "langchain", "anthropic")}
    assert by_name["crewai"].state is State.MISSING
    assert str(by_name["crewai"]) == "crewai: missing, crewai is not installed"
    assert by_name["google_genai"].state is State.REFUSED
    refusal = "does nothing from version 3 on, in silence: use wrap(client) of taskpilot_obs_google_genai"
    assert refusal in by_name["google_genai"].text
    assert by_name["langchain"].state is State.BY_HAND
    assert by_name["anthropic"].state is State.ON
    with caplog.at_level(logging.INFO, "taskpilot_obs"):
        shown = alone("print([str(one) for one in instrument('google_genai')])")
        uninstrument()
    assert "refused, opentelemetry-instrumentation-google-genai does nothing" in shown


def test_an_application_is_observed_without_a_changed_line() -> None:
    """`taskpilot-obs run -- python app.py`; the application's exit code and output are its own."""
    shown = alone(
        """
with serving() as server, capture_invocations() as seen:
    ask(server.url)
    print([(run.name, run.usage.output_tokens) for run in seen])
""",
        str(Path(sys.executable).parent / "taskpilot-obs"),
        "run",
        "--only",
        "openai",
        "--",
    )
    assert shown.strip() == "[('gpt-4o-mini', 20)]"


def test_an_entry_point_whose_package_is_missing(tmp_path: Path) -> None:
    """`run` starts the program with the folders that are there."""
    about = tmp_path / "gone-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[taskpilot_obs.autoload]\ngone = gone.inner:AUTOLOAD\n", encoding="utf-8")
    command = [str(Path(sys.executable).parent / "taskpilot-obs"), "run", "--", "printenv", "PYTHONPATH"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder, *others = done.stdout.strip().split(os.pathsep)
    assert (Path(folder) / "sitecustomize.py").is_file()
    assert others == [str(tmp_path)]


def test_a_program_that_does_not_exist() -> None:
    """`run` says which word is not a program, and exits with 2."""
    command = [str(Path(sys.executable).parent / "taskpilot-obs"), "run", "--", "no-such-program"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'no-such-program' is not a program" in done.stderr


def test_doctor_reports_what_can_be_observed() -> None:
    """One finding for each SDK or framework that is installed, with what to do."""
    from typer import Typer

    from taskpilot_obs.cli import doctor
    from taskpilot_obs.cli._program import add_commands

    app = Typer()
    add_commands(app, doctor)
    findings = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    about = {one["text"].partition(" ")[0]: one for one in findings if one["check"] == "observed"}
    assert about["anthropic"]["level"] == "ok"
    assert about["google_genai"]["level"] == "warning"
    assert "taskpilot-obs run -- python" in about["openai"]["remedy"]
