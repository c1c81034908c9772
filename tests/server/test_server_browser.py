"""The pages in a real browser: Debian's Chromium, driven by Playwright.

axe-core, which looks for what keeps people with disabilities out, is unpacked by `scripts/setup.sh`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from _serving import PRESENT, benchmark_run, fill, present, requests_of, serving, tokens_in
from _stored import llm_call, sqlite_url, store_at
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from taskpilot_obs.budgets import Budget
from taskpilot_obs.compare.bench import benchmark
from taskpilot_obs.compare.bench.documents import as_page
from taskpilot_obs.compare.bench.keeping import Folder
from taskpilot_obs.server import create_app
from taskpilot_obs.server.web import PAGES

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATHS = [shown.path for shown in PAGES]
DETAILS = ["/requests/acme-1", "/experiments/plan-test"]
WIDTHS = [360, 768, 1_440]
MOST_BYTES = 150_000
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "x" * 256,
    "שלום עולם " * 12,
    "\u202eevil\u202c",
    "a\u0301" * 80,
    "=HYPERLINK(1)",
    "{{ 7 * 7 }}",
    "'; DROP TABLE llm_calls; --",
]
BUDGETS = [Budget("daily", limit_usd=Decimal("0.1")), Budget("each", limit_usd=1, scope={"tenant": "*"})]


def needed(found: str | None, what: str) -> str:
    """A path that must be there in CI, and that elsewhere is missed aloud."""
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(what)
        pytest.skip(what)
    return found


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    file = Path(os.environ.get("TASKPILOT_OBS_AXE", Path(sys.prefix) / "axe-core" / "package" / "axe.min.js"))
    return Path(
        needed(str(file) if file.exists() else None, f"axe-core is not at {file}: run scripts/setup.sh")
    ).read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = needed(shutil.which("chromium"), "Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over a store with two tenants."""
    with store_at(sqlite_url(tmp_path_factory.mktemp("store"))) as store:
        fill(store, [*requests_of("acme", 60), *requests_of("globex", 20, seed=2)])
        benchmark_run(store)
        fill(store, [llm_call(PRESENT - timedelta(seconds=1), cost=None, response_model="new-model", request_id="odd")])
        with serving(create_app(store=store, budgets=BUDGETS, now=present)) as address:
            yield address


@pytest.fixture(scope="module")
def hostile_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over a store with 1,000 models, and with names that try to break a page."""
    with store_at(sqlite_url(tmp_path_factory.mktemp("hostile"))) as store:
        models = [dict.fromkeys(("request_model", "response_model"), f"model-{n:04d}") for n in range(1, 1_001)]
        calls = [llm_call(PRESENT - timedelta(seconds=n), **model) for n, model in enumerate(models, 1)]
        for number, name in enumerate(HOSTILE):
            names: dict[str, Any] = dict.fromkeys(
                ("tenant", "agent", "workflow", "provider", "request_model", "response_model"), name
            )
            calls += [
                llm_call(PRESENT - timedelta(seconds=number), request_id=name, **names, cost=Decimal(9))
                for _ in range(3)
            ]
        fill(store, calls)
        with serving(create_app(store=store, budgets=[Budget(HOSTILE[0], limit_usd=1)], now=present)) as address:
            yield address


@dataclass
class Watched:
    """A page, and what must not happen on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@pytest.fixture
def watch(browser: Browser) -> Iterator[Any]:
    """Opens pages whose console, errors, requests and policy violations are kept."""
    opened: list[tuple[BrowserContext, Watched]] = []

    def open_page(**options: Any) -> Watched:
        context = browser.new_context(**options)
        watched = Watched(context.new_page())
        watched.page.on("console", lambda said: watched.complaints.append(said.text))
        watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        watched.page.on("dialog", lambda dialog: watched.complaints.append(dialog.message))
        watched.page.on("request", lambda asked: watched.hosts.add(asked.url.split("/")[2]))
        opened.append((context, watched))
        return watched

    yield open_page
    for context, watched in opened:
        context.close()
        assert watched.complaints == []


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds; it runs outside of the page's policy."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


def too_wide(page: Page) -> int:
    """By how many pixels the page is wider than the window; tables scroll by themselves."""
    wide: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide


SCREENS = [(360, "light"), (768, "dark"), (1_440, "light")]
OTHERS = [(width, scheme) for width in WIDTHS for scheme in ("light", "dark") if (width, scheme) not in SCREENS]


@pytest.mark.promise("server-leaks-nothing")
@pytest.mark.parametrize(
    ("width", "scheme"), [*SCREENS, *(pytest.param(*screen, marks=pytest.mark.full) for screen in OTHERS)]
)
def test_every_page_is_sound(url: str, watch: Any, axe: str, width: int, scheme: str) -> None:
    """No accessibility violation, no word on the console, no policy violation, no other host, nothing too wide."""
    seen = watch(viewport={"width": width, "height": 900}, color_scheme=scheme)
    for path in [*PATHS, *DETAILS]:
        answer = seen.page.goto(url + path)
        assert answer is not None
        assert answer.status == 200, path
        assert violations(seen.page, axe) == [], path
        assert too_wide(seen.page) <= 0, path
        dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
        assert dark == (scheme == "dark")
    assert seen.hosts == {url.removeprefix("http://")}


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1_440, "light")])
def test_the_report_of_a_benchmark_is_sound(tmp_path: Path, watch: Any, axe: str, width: int, scheme: str) -> None:
    """The HTML report is accessible, follows the colour scheme, fits a phone, and breaks no figure within a word."""
    report = benchmark({HOSTILE[0]: str.upper, "a" * 90: str.lower}, iterations=1, items=4, out=tmp_path)
    file = tmp_path / "report.html"
    file.write_text(as_page(report, Folder(tmp_path).read_calls()), encoding="utf-8")
    seen = watch(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen.page.goto(file.as_uri())
    assert violations(seen.page, axe) == []
    assert too_wide(seen.page) <= 0
    colour = seen.page.evaluate("getComputedStyle(document.documentElement).color")
    assert colour == ("rgb(255, 255, 255)" if scheme == "dark" else "rgb(0, 0, 0)")
    heights = seen.page.evaluate("[...document.querySelectorAll('.arms td')].map(cell => cell.offsetHeight)")
    assert max(heights) < 60


def test_the_login_and_errors_are_sound(tmp_path: Path, watch: Any, axe: str) -> None:
    """A browser logs in by keyboard, sees what its token may see, and leaves again."""
    file, tokens = tokens_in(tmp_path)
    with store_at(sqlite_url(tmp_path)) as store:
        fill(store, requests_of("acme", 5))
        with serving(create_app(store=store, tokens=file, now=present)) as url:
            seen = watch(viewport={"width": 360, "height": 800})
            page: Page = seen.page
            page.goto(f"{url}/costs")
            assert violations(page, axe) == []
            page.get_by_label("Token").fill(tokens["owner"])
            page.keyboard.press("Enter")
            page.wait_for_url("**/costs")
            assert "acme" in page.locator(".who").inner_text()
            page.goto(f"{url}/calls?status=error&period=30d")
            assert violations(page, axe) == []
            page.goto(f"{url}/requests/acme-1")
            page.get_by_role("button", name="No").click()
            page.wait_for_selector("text=incorrect")
            page.get_by_role("button", name="Log out").click()
            page.wait_for_url("**/login")
            answer = page.goto(f"{url}/nope")
            assert answer is not None
            assert answer.status == 404
            assert "there is nothing at this address" in page.get_by_role("alert").inner_text()
            assert violations(page, axe) == []
        seen.complaints = [said for said in seen.complaints if "404" not in said]  # Chromium's word on the status


def test_a_page_weighs_little_and_is_there_soon(url: str, hostile_url: str, watch: Any) -> None:
    """Page, style, script and icon together stay below 150 KB over the wire, also with 1,000 models."""
    for address in (url, hostile_url):
        for path in [*PATHS, *DETAILS]:
            seen = watch()
            received: list[int] = []
            seen.page.on("requestfinished", lambda asked, into=received: into.append(asked.sizes()["responseBodySize"]))
            answer = seen.page.goto(address + path, wait_until="networkidle")
            assert answer is not None
            if answer.status == 200:
                assert sum(received) <= MOST_BYTES, path
            seen.complaints = [said for said in seen.complaints if "404" not in said]


def test_without_javascript_all_is_there(url: str, watch: Any) -> None:
    """Figures, charts and their tables are on the page as it comes; times are in UTC."""
    seen = watch(java_script_enabled=False)
    seen.page.goto(url)
    assert seen.page.locator("svg[role=img] rect").count() > 0
    assert seen.page.locator("ul.signals li").count() == 5
    seen.page.locator("summary").first.click()
    assert seen.page.locator("details[open] td").first.is_visible()
    assert "UTC" in seen.page.locator("details[open] tbody time").first.inner_text()


def test_times_are_in_the_readers_zone_with_utc_on_hover(url: str, watch: Any) -> None:
    """A reader in Tokyo sees Tokyo's time, and the title tells UTC."""
    seen = watch(timezone_id="Asia/Tokyo", locale="en-GB")
    seen.page.goto(f"{url}/calls")
    time = seen.page.locator("#table-calls tbody time").first
    assert "UTC" in (time.get_attribute("title") or "")
    hour = int((time.get_attribute("title") or "").split(" ")[1].split(":")[0])
    assert f"{(hour + 9) % 24:02d}:" in time.inner_text()


def test_the_keyboard_reaches_and_operates_everything(url: str, watch: Any) -> None:
    """Tab visits every link, field, table, chart and summary; arrows read a chart's values; Enter opens its table."""
    seen = watch(viewport={"width": 1_440, "height": 900})
    page: Page = seen.page
    page.goto(url)
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href],button,input:not([type=hidden]),select,summary,[tabindex=\"0\"]')]"
        ".filter(one => !one.closest('details:not([open])') || one.tagName === 'SUMMARY').length"
    )
    reached = set()
    for _ in range(2 * wanted):  # the parts of a date are places of their own
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("[...document.all].indexOf(document.activeElement) + ' ' + document.activeElement.tagName")
        )
    assert len({one for one in reached if not one.endswith(("BODY", "HTML"))}) == wanted
    page.locator("figure.chart svg").first.focus()
    page.keyboard.press("End")
    readout = page.locator(".readout").first.inner_text()
    assert any(word in readout for word in ("succeeded", "failed"))
    page.keyboard.press("Home")
    assert page.locator(".readout").first.inner_text() != ""
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


def test_a_refresh_keeps_place_and_leaks_nothing(url: str, watch: Any) -> None:
    """Ten refreshes: scroll, focus, open tables and typed filters stay; no more nodes or listeners than before."""
    seen = watch(viewport={"width": 900, "height": 600})
    page: Page = seen.page
    page.goto(url)
    page.locator("summary").nth(1).click()
    page.get_by_label("Workflow").fill("half-typed")
    page.locator("summary").nth(1).focus()
    page.evaluate("window.scrollTo(0, 400)")
    session = page.context.new_cdp_session(page)

    def counted() -> dict[str, float]:
        session.send("HeapProfiler.collectGarbage")
        found: dict[str, float] = session.send("Memory.getDOMCounters")
        return found

    def refreshed() -> dict[str, float]:
        with page.expect_response(lambda answer: answer.url.rstrip("/") == url):
            page.evaluate("document.dispatchEvent(new Event('taskpilot:refresh'))")
        page.wait_for_function("document.getElementById('refreshing').textContent.includes('30 seconds')")
        return counted()

    before = [refreshed() for _ in range(3)][-1]
    after = [refreshed() for _ in range(10)][-1]
    for _ in range(50):  # Chromium lets go of the last page's nodes when it is idle; a leak would keep those of all ten
        if after["nodes"] <= before["nodes"] * 1.05:
            break
        page.wait_for_timeout(100)
        after = counted()
    assert after["nodes"] <= before["nodes"] * 1.05
    assert after["jsEventListeners"] <= before["jsEventListeners"] * 1.05
    assert page.evaluate("window.scrollY") == 400
    assert page.locator("details[open]").count() == 1
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.get_by_label("Workflow").input_value() == "half-typed"


def test_a_server_that_is_away_is_told_and_the_figures_stay(url: str, watch: Any) -> None:
    """The page says that it cannot be refreshed, in place of going blank."""
    seen = watch()
    seen.page.goto(url)
    seen.page.route("**/*", lambda route: route.abort())
    seen.page.evaluate("document.dispatchEvent(new Event('taskpilot:refresh'))")
    seen.page.wait_for_selector("text=the server cannot be reached now")
    assert seen.page.locator("ul.signals li").count() == 5
    seen.complaints = [said for said in seen.complaints if "ERR_FAILED" not in said]


@pytest.mark.parametrize("width", [360, 1_440])
def test_hostile_names_and_a_thousand_models_break_no_layout(
    hostile_url: str, watch: Any, axe: str, width: int
) -> None:
    """Markup stays text, long and right-to-left names stay in their cells, and the page says how much it left out."""
    seen = watch(viewport={"width": width, "height": 900})
    for path in PATHS:
        seen.page.goto(hostile_url + path)
        assert too_wide(seen.page) <= 0, path
        assert violations(seen.page, axe) == [], path
        assert seen.page.locator("#content script, #content img").count() == 0
    seen.page.goto(f"{hostile_url}/benchmarks")
    assert seen.page.locator("#table-benchmarks tbody tr").count() == 100
    assert "CSV has all" in seen.page.locator("#content").inner_text()


def test_a_custom_stretch_of_time_is_in_the_url(url: str, watch: Any) -> None:
    """Two dates take the place of the period, links keep them, and choosing a period lets go of them."""
    seen = watch(viewport={"width": 1_440, "height": 900})
    page: Page = seen.page
    page.goto(f"{url}/benchmarks")
    page.get_by_label("From").fill("2026-03-10")
    page.get_by_label("To").fill("2026-03-10")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/benchmarks?*start=2026-03-10&end=2026-03-10*")
    assert "from 2026-03-10 to 2026-03-10" in page.locator("#table-benchmarks caption").inner_text()
    assert "start=2026-03-10" in (page.locator("#table-benchmarks a").first.get_attribute("href") or "")
    page.get_by_label("Period").select_option("24h")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/benchmarks?period=24h&start=&end=*")
    assert "in 24h" in page.locator("#table-benchmarks caption").inner_text()


def test_programs_get_json_from_the_url_of_a_page(url: str) -> None:
    """`Accept: application/json` answers with the tables, a browser's with the page."""
    asked = httpx.get(f"{url}/experiments/plan-test", headers={"Accept": "application/json"})
    assert [row["variant"] for row in asked.json()["tables"]["arms"]["rows"]] == ["v1", "v2"]
    shown = httpx.get(f"{url}/experiments/plan-test", headers={"Accept": "text/html,application/json;q=0.9"})
    assert shown.headers["content-type"].startswith("text/html")
