"""The lab's page as a reader sees it: the answer first, then a line for each claim, and the rest folded."""

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SCREEN = {"width": 1280, "height": 800}


@pytest.fixture
def lab(visit, pages):
    return visit((pages / "lab.html").as_uri(), viewport=SCREEN, color_scheme="light")


def test_the_page_is_small_and_six_screens_at_most_before_anything_is_unfolded(lab, pages):
    assert (pages / "lab.html").stat().st_size < 500_000
    assert lab.evaluate("document.documentElement.scrollHeight") <= 6 * SCREEN["height"]


def test_the_first_screen_has_the_answer_and_its_picture(lab):
    assert "one pool per server process" in lab.locator("h1").text_content()
    for users in (1, 100):
        box = lab.locator(f"#chart-answer-{users} .drawing").bounding_box()
        assert box["y"] + box["height"] < SCREEN["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_failures_are_red_words(visit, pages, scheme):
    page = visit((pages / "lab.html").as_uri(), color_scheme=scheme)
    word = page.locator("#chart-answer-100 text.bad").first
    assert word.text_content() == "116, 71 % failed"
    colours = word.evaluate("e => getComputedStyle(e).fill.match(/[0-9]+/g).map(Number)")
    assert colours[0] > 1.4 * max(colours[1:])


@pytest.mark.parametrize("width", [390, 1280])
def test_no_two_words_of_the_picture_overlap(visit, pages, width):
    page = visit((pages / "lab.html").as_uri(), viewport={"width": width, "height": 800})
    boxes = [box for text in page.locator("#chart-answer-100 .drawing text").all() if (box := text.bounding_box())]
    assert len(boxes) > 10
    assert max(box["x"] + box["width"] for box in boxes) <= width
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            apart = a["x"] + a["width"] <= b["x"] + 1 or b["x"] + b["width"] <= a["x"] + 1
            assert apart or a["y"] + a["height"] <= b["y"] + 2 or b["y"] + b["height"] <= a["y"] + 2


def test_without_scripts_everything_can_be_unfolded(visit, pages):
    page = visit((pages / "lab.html").as_uri(), java_script_enabled=False)
    assert page.locator("#chart-answer-1 path.fill").count() == 1
    claim = page.locator("#table-claims-judged details").first
    assert not claim.get_by_text("criterion, set beforehand").is_visible()
    claim.locator("summary").click()
    assert claim.get_by_text("criterion, set beforehand").is_visible()
    page.locator("#experiments").click()
    assert page.locator("#table-overview").is_visible()


def test_a_link_unfolds_what_it_leads_to(lab):
    lab.get_by_role("navigation").get_by_role("link", name="Experiments").click()
    assert lab.locator("#table-overview").is_visible()
    lab.locator("#table-overview a").first.click()
    assert lab.locator("#table-x0-figures").is_visible()


def test_paper_shows_what_is_folded(lab):
    lab.emulate_media(media="print")
    lab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert lab.locator("#table-memory, #environment").first.is_visible()
    assert lab.get_by_text("criterion, set beforehand").first.is_visible()
    assert lab.locator("#table-overview").is_visible()
    lab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not lab.locator("#table-overview").is_visible()
