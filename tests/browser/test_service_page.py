"""The service's own page in a browser, on a real service with two workers."""

import re

import pytest

from tests.support.server_process import serving, wait_until

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


@pytest.fixture(scope="module")
def service(postgres, tmp_path_factory):
    log = tmp_path_factory.mktemp("service") / "stderr"
    with serving(log, DATABASE_URL=postgres.url, WEB_CONCURRENCY=2) as server:
        wait_until(lambda: all(answer.json["all_workers"]["workers"] == 2 for answer in server.get_many("/pool", 20)))
        yield server


@pytest.fixture
def home(service):
    return f"http://127.0.0.1:{service.port}/"


def figure(page, name):
    return page.locator(f'[data-figure="{name}"]')


def test_the_figures_move_while_the_page_is_looked_at(visit, service, home):
    page = visit(home)
    expect(page.locator("#curves path.in-use")).to_have_attribute("d", re.compile("^M.*Z$"))
    service.get_many("/health", 20)
    expect(figure(page, "idle")).not_to_have_text("0")
    expect(figure(page, "p99")).to_contain_text("ms")
    expect(figure(page, "span")).to_have_text("in the last 30 s")


def test_a_page_that_nobody_sees_asks_for_nothing(visit, home):
    page = visit(home)
    expect(page.locator("#curves")).to_be_visible()
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    page.wait_for_load_state("networkidle")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert asked == []
    with page.expect_request("**/pool"):
        page.evaluate(hide, False)


@pytest.mark.slow
def test_the_page_says_that_the_service_does_not_answer(visit, home):
    page = visit(home, expected="500")
    page.route("**/pool", lambda route: route.fulfill(status=500))
    expect(page.locator("#state")).to_have_text("The service does not answer; trying again …")
    page.unroute("**/pool")
    expect(page.locator("#state")).to_have_text("Drawn anew every 2 s while this page is in view.", timeout=10_000)


def test_without_scripts_the_page_has_its_figures(visit, home):
    page = visit(home, java_script_enabled=False)
    expect(figure(page, "workers")).to_have_text("2 workers")
    assert page.locator("#bar").is_visible() and page.locator("#curves").is_hidden()
    assert page.locator("tbody tr").count() > 8


def test_axe_finds_nothing_on_the_service_page(visit, axe, home):
    page = visit(home)
    expect(page.locator("#curves")).to_be_visible()
    for width, scheme, media in ((1280, "light", "screen"), (390, "dark", "screen"), (688, "light", "print")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(media=media, color_scheme=scheme)
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
