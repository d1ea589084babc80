"""The doctor's page as a reader sees it: the diagnosis first, with its line of code, on screens of any width and on paper."""

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from loadgen.lab.doctor_findings import doctor_page
from poolbench.findings import KINDS, Diagnosis, Finding
from reports.model import Report
from reports.writers.output import written

LINE = 'receipt = session.post("http://payments.internal/capture", json={"order": order.id, "total": str(order.total)})'
FOUND = (
    Finding("leak", "shop/feed.py:8", "GET /feed/<int:start>", "Connections are not given back.", "Give them back.", 0.3),
    Finding("work-while-holding", "shop/payments/capture.py:114", "POST /orders/<int:number>/pay", "102 ms.", "Before.", 0.93),
)  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    given = {"application": "shop:create_app()", "script": "load.yml", "servers": 2, "seconds": 60}
    checked = tuple(kind for kind in KINDS if kind not in {each.kind for each in FOUND})
    page = doctor_page(
        given,
        Diagnosis(FOUND, checked),
        Report.of([]),
        ["Served by gunicorn."],
        {"shop/payments/capture.py:114": LINE},
        partial=False,
    )
    path = tmp_path_factory.mktemp("doctor") / "doctor.html"
    path.write_text(written(page, "html"))
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_has_no_faults_and_fits_its_screen(visit, axe, address, scheme, width):
    page = visit(address, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert not axe(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_screen_says_what_is_wrong_where_and_what_it_costs(visit, address):
    page = visit(address, viewport={"width": 390, "height": 800})
    title, cost = page.locator("h1"), page.locator("main p").first
    assert "shop/feed.py:8, in GET /feed/<int:start>" in title.text_content()
    assert "30 % of the requests' time" in cost.text_content()
    for text in (title, cost, page.get_by_text("93 %").first):
        box = text.bounding_box()
        assert box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 800


def test_the_line_of_code_is_shown_and_printed(visit, address):
    page = visit(address)
    assert page.locator("pre", has_text="payments.internal").is_visible()
    page.emulate_media(media="print")
    assert page.locator("pre", has_text="payments.internal").is_visible()
