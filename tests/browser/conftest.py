"""Pages in a real browser: headless Chromium through Playwright. A page that complains, or asks for anything from another
host, fails its test. Without the browser the tests skip, except where POOLBENCH_NO_SKIP says otherwise.
"""

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from loadgen.lab.findings import lab_page
from reports.compare.diff import compare
from reports.page.page import render, to_html
from tests.support.sample_lab import lab_evidence
from tests.support.sample_reports import EVIL, report, scaled

CHROMIUM = os.environ.get("POOLBENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
AXE_PLACES = (
    os.environ.get("POOLBENCH_AXE", ""),
    str(Path.home() / ".cache/poolbench-tools/node_modules/axe-core/axe.min.js"),
    "node_modules/axe-core/axe.min.js",
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def chromium():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium, or POOLBENCH_CHROMIUM)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def visiting(chromium):
    """A function that opens pages; at the end, what they complained of or fetched from elsewhere is a failure."""
    contexts, complaints, allowed = [], [], []

    def open_page(url, expected=None, **options):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        allowed.append(expected)
        page.on("request", lambda r: complaints.append(f"asked for {r.url}") if foreign(r.url) else None)
        page.goto(url, wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [text for text in complaints if not any(part and part in text for part in allowed)]


@pytest.fixture
def visit(chromium):
    """visit(url, expected=part of a complaint that is right, **options of the context) -> page."""
    with visiting(chromium) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def one(chromium, pages):
    """The page on one report, opened once for all tests of a file."""
    with visiting(chromium) as open_page:
        yield open_page((pages / "one.html").as_uri(), color_scheme="light")


@pytest.fixture(scope="module")
def two(chromium, pages):
    """The page on two reports, opened once."""
    with visiting(chromium) as open_page:
        yield open_page((pages / "two.html").as_uri(), color_scheme="light")


def foreign(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob") and parts.hostname != "127.0.0.1"


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A folder with a page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    old, new = report(1), report(2, slower=2.0)
    one, two = [("pool10.json", old)], [("old.json", old), ("new.json", new)]
    (folder / "one.html").write_text(to_html(one, title="Load test report"))
    (folder / "two.html").write_text(to_html(two, compare(old, new), title="Two reports"))
    session = lab_evidence()
    measured = {key: replace(run, report=report(9, periods=30)) for key, run in session.outcomes.items()}
    (folder / "lab.html").write_text(render(lab_page(replace(session, outcomes=measured))))
    hostile = report(3, periods=3, environment={"cpu": EVIL, EVIL: EVIL, "script": EVIL}, warnings=[EVIL])
    (folder / "hostile.html").write_text(to_html([(EVIL, hostile)] * 2, title=EVIL))
    huge, tiny = scaled(old, 1e6), scaled(old, 1e-5)
    (folder / "huge.html").write_text(to_html([("huge.json", huge)], title="Huge figures"))
    (folder / "tiny.html").write_text(to_html([("tiny.json", tiny)], title="Tiny figures"))
    names = [f"{'a-name-that-nobody-wants-to-type-' * 4}{number}.json" for number in (1, 2)]
    both = list(zip(names, (old, huge), strict=True))
    (folder / "long-names.html").write_text(to_html(both, compare(old, huge), title=names[0]))
    (folder / "long.html").write_text(to_html([("long.json", report(4, periods=100))], title="A long run"))
    return folder


@pytest.fixture
def axe():
    """axe(page, rules) -> findings of axe-core (of these rules only), one line each."""
    path = next((p for p in AXE_PLACES if p and Path(p).is_file()), None)
    if path is None:
        pytest.skip("axe-core is not installed (npm install axe-core, and POOLBENCH_AXE=…/axe.min.js)")
    source = Path(path).read_text()

    def findings(page, rules=()):
        page.evaluate(source)
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        found = page.evaluate("options => axe.run(document, options)", options)
        return [f"{v['id']}: {v['help']}: {n['target']}" for v in found["violations"] for n in v["nodes"]]

    return findings
