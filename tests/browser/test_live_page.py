"""The live page beside a real run."""

import json
import re
import sys

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


class LiveRun:
    def __init__(self, process):
        self.process = process

    def open(self):
        opening = json.loads(self.process.stdout.readline())
        self.url, self.token = opening["url"], opening["token"]
        return self

    def outcome(self):
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def live_run(start_process):
    """live_run(seconds) -> a run in progress; ended with the test."""

    def start(seconds):
        command = [sys.executable, "-m", "tests.browser.live_run", str(seconds)]
        return LiveRun(start_process(command, stderr=None)).open()

    return start


def figure(page, name):
    return page.locator(f'[data-figure="{name}"]')


def moving(page):
    """Wait until figures of a running test have come."""
    expect(page.locator("#state")).to_have_text("Running")
    expect(figure(page, "requests")).to_have_text(re.compile(r"\d\d"))


def test_the_figures_of_a_running_test_move_and_become_the_report(visit, live_run):
    run = live_run(4)
    page = visit(run.url)
    moving(page)
    expect(figure(page, "p95")).to_contain_text("ms")
    expect(figure(page, "pool")).to_contain_text("1.51 ms")
    expect(figure(page, "lag")).to_contain_text("ms")
    expect(figure(page, "rate")).not_to_have_text("–")
    expect(page.locator(".plot svg path.line").first).to_have_attribute("d", re.compile("^M.*L"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Load test report", timeout=15_000)
    requests = run.outcome()["requests"]
    expect(page.locator(".figures")).to_contain_text(str(requests))


def test_stopping_needs_the_token(visit, live_run, axe):
    run = live_run(60)
    page = visit(run.url, expected="403 (Forbidden)")
    moving(page)
    assert axe(page) == []
    page.get_by_label("Token").fill("not the token")
    with page.expect_response("**/stop") as refused:
        page.get_by_role("button", name="Stop the run").click()
    assert refused.value.status == 403
    expect(page.locator("#answer")).to_have_text("That is not the token printed at the start.")
    page.get_by_label("Token").fill(run.token)
    page.get_by_role("button", name="Stop the run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Load test report", timeout=15_000)
    assert run.outcome()["interrupted"]
    assert "did not reach its planned end" in page.locator("#main").inner_text()
