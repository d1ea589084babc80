"""The report page as a reader uses it."""

import re
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

CHARTS = ("throughput", "latency", "failures", "time-goes-over-time", "percentiles", "histogram", "time-goes")
LABEL = "document.querySelector('#chart-throughput .drawing text')"


def chart(page, name):
    return page.locator(f"#chart-{name}")


def hover(page, name, share):
    """Point at a chart, a share of its width from the left; what is then told."""
    drawing = chart(page, name).locator(".drawing")
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    return chart(page, name).locator(".tip")


def test_the_page_is_usable_within_two_seconds(one, pages):
    entry = one.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    assert entry["domInteractive"] < 2000
    assert one.get_by_role("button", name="Theme").is_visible()
    assert (pages / "one.html").stat().st_size < 150_000


def test_a_page_with_a_point_a_second_of_a_hundred_periods_is_quick_and_small(visit, pages):
    page = visit((pages / "long.html").as_uri())
    entry = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    assert entry["domInteractive"] < 2000
    assert (pages / "long.html").stat().st_size < 400_000
    assert chart(page, "latency").locator("table.data tbody tr").count() == 1000
    expect(hover(page, "latency", 0.999)).to_contain_text("16:38")


def test_every_chart_stands_in_the_page(one):
    assert one.locator("figure.chart").count() == len(CHARTS)
    for name in CHARTS:
        box = chart(one, name).locator(".drawing .marks").first.bounding_box()
        assert box["width"] > 200


def test_hovering_tells_the_figures_of_a_second(one):
    tip = hover(one, "latency", 30 / 59)
    row = chart(one, "latency").locator("table.data tbody tr").nth(30).locator("th, td").all_text_contents()
    assert row[0] == "0:30"
    assert tip.locator("b").text_content() == "0:30"
    assert tip.locator("span").all_text_contents() == [
        f"{name}{value} ms" for name, value in zip(("p50", "p95", "p99"), row[1:], strict=True)
    ]
    assert chart(one, "latency").locator(".guide i").count() == 3
    one.mouse.move(0, 0)
    expect(tip).to_have_count(0)


def test_what_a_finger_touches_stays_until_another_place_is_touched(visit, pages):
    page = visit((pages / "one.html").as_uri(), viewport={"width": 390, "height": 800}, has_touch=True)
    latency = chart(page, "latency")
    latency.locator(".drawing").tap()
    expect(latency.locator(".tip")).to_contain_text("p95")
    page.get_by_role("heading", level=1).tap()
    expect(latency.locator(".tip")).to_have_count(0)


def test_a_dot_stands_on_its_curve(one):
    """The dots of a hovered point lie within the drawing of their curve, on either scale."""
    for _ in range(2):
        hover(one, "latency", 0.5)
        dots = (
            chart(one, "latency")
            .locator(".guide i")
            .evaluate_all("dots => dots.map((dot) => dot.getBoundingClientRect().y + 4.5)")
        )
        curves = (
            chart(one, "latency")
            .locator("path.line:visible")
            .evaluate_all(
                "curves => curves.map((curve) => { const box = curve.getBoundingClientRect(); return [box.top, box.bottom]; })"
            )
        )
        assert all(top - 2 <= dot <= bottom + 2 for dot, (top, bottom) in zip(dots, curves, strict=True))
        chart(one, "latency").get_by_role("button", name="Log scale").click()


def test_the_keyboard_reads_the_figures_aloud(one):
    plot = chart(one, "failures").locator(".plot")
    plot.focus()
    plot.press("ArrowRight")
    expect(plot.get_by_role("status")).to_contain_text("0:00")
    plot.press("ArrowRight")
    expect(plot.get_by_role("status")).to_contain_text("0:10")
    plot.press("End")
    expect(plot.get_by_role("status")).to_contain_text("0:50")
    expect(plot.get_by_role("status")).to_contain_text("HTTP 503")
    plot.press("Escape")
    expect(plot.get_by_role("status")).to_have_count(0)


def test_a_row_of_names_is_read_too(one):
    tip = hover(one, "time-goes", 0.5)
    expect(tip).to_contain_text("whole run")
    expect(tip).to_contain_text("pool wait")


def test_a_click_in_the_legend_hides_a_curve_and_shows_it_again(one):
    latency = chart(one, "latency")
    lines = latency.locator("path.line:visible")
    expect(lines).to_have_count(3)
    p99 = latency.get_by_role("button", name="p99")
    p99.click()
    expect(lines).to_have_count(2)
    expect(p99).to_have_attribute("aria-pressed", "false")
    expect(hover(one, "latency", 0.5)).not_to_contain_text("p99")
    p99.press("Enter")
    expect(lines).to_have_count(3)


def test_the_scale_can_be_made_logarithmic_and_linear_again(one):
    latency = chart(one, "latency")
    button = latency.get_by_role("button", name="Log scale")
    zero = latency.locator(".drawing text:visible", has_text=re.compile("^0$"))
    expect(zero).to_have_count(1)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(zero).to_have_count(0)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(zero).to_have_count(1)
    assert not chart(one, "throughput").get_by_role("button", name="Log scale").count()  # its errors are zero


@pytest.mark.parametrize("kind", ["CSV", "SVG", "PNG"])
def test_a_chart_is_saved(one, tmp_path, kind):
    with one.expect_download() as saving:
        chart(one, "latency").get_by_role("button", name=f"Save as {kind}").click()
    assert saving.value.suggested_filename == f"chart-latency.{kind.lower()}"
    saving.value.save_as(tmp_path / "saved")
    data = (tmp_path / "saved").read_bytes()
    if kind == "CSV":
        head, first, *others = data.decode().splitlines()
        assert head == "time since the start,p50,p95,p99"
        assert first.startswith("0:00,")
        assert len(others) == 59
    elif kind == "SVG":
        document = ET.fromstring(data)
        words = [text for element in document.iter() if (text := element.text)]
        assert {"p50", "p95", "p99", "time since the start"} <= set(words)
        assert "Response time percentiles" in words
    else:
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20]) == 1440


def test_a_table_is_sorted_by_amount_not_by_digits(one):
    table = one.locator("#table-counters")
    heading = table.get_by_role("button", name="value")

    def amounts():
        return table.locator("td").evaluate_all("cells => cells.map(cell => Number(cell.dataset.sort))")

    heading.click()
    assert amounts() == sorted(amounts(), reverse=True)
    expect(table.locator("thead th").nth(1)).to_have_attribute("aria-sort", "descending")
    heading.click()
    assert amounts() == sorted(amounts())


def test_a_table_is_filtered_by_words_and_by_verdict(two):
    table = two.locator("#table-verdicts")
    two.locator("details:has(> #table-verdicts) > summary").click()
    rows = table.locator("tbody tr:visible")
    everything = rows.count()
    table.get_by_role("searchbox", name="Filter").fill("RESPONSE_TIME p99")
    left = rows.all_text_contents()
    assert 0 < len(left) < everything
    assert all("response_time" in text and "p99" in text for text in left)
    expect(table.get_by_role("status")).to_have_text(f"{len(left)} of {everything} rows")
    table.get_by_role("searchbox", name="Filter").fill("")
    table.get_by_role("combobox", name="Verdict").select_option("worse")
    assert rows.count() > 0
    assert set(table.locator("tbody tr:visible td.m").all_text_contents()) == {"worse"}


def test_charts_of_two_reports_have_a_curve_for_each(two):
    curves = chart(two, "percentiles")
    expect(curves.locator("path.line:visible")).to_have_count(2)
    assert curves.locator(".legend button").all_text_contents() == ["old.json", "new.json"]


def test_axe_finds_nothing_on_one_report(one, axe):
    details = chart(one, "throughput").locator("details")
    details.evaluate("details => { details.open = true; }")
    hover(one, "latency", 0.5)
    assert axe(one) == []
    details.evaluate("details => { details.open = false; }")


def test_axe_finds_nothing_on_two_reports(two, axe):
    assert axe(two) == []


def test_the_theme_is_switched_and_remembered_and_charts_follow(one, axe):
    ink = "getComputedStyle(document.body).color"
    text = f"getComputedStyle({LABEL}).fill"
    light, light_text = one.evaluate(ink), one.evaluate(text)
    button = one.get_by_role("button", name="Theme")
    button.click()
    assert one.evaluate(ink) == light
    button.click()
    expect(button).to_have_text("Theme: dark")
    assert one.evaluate(ink) != light
    one.wait_for_function(f"{text} !== {light_text!r}")
    assert axe(one, ["color-contrast"]) == []
    one.reload()
    expect(button).to_have_text("Theme: dark")
    button.click()


def test_print_shows_charts_without_controls_on_white(one):
    one.emulate_media(media="print", color_scheme="dark")
    expect(chart(one, "throughput").locator(".drawing")).to_be_visible()
    expect(chart(one, "throughput").get_by_role("button", name="Save as")).to_have_count(0)
    expect(one.locator("nav")).to_be_hidden()
    assert one.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    one.emulate_media(media="screen", color_scheme="light")


def test_without_scripts_the_same_charts_and_their_figures_are_there(visit, pages):
    page = visit((pages / "one.html").as_uri(), color_scheme="dark", java_script_enabled=False)
    pictures = page.locator("figure .plot > svg")
    assert pictures.count() == len(CHARTS)
    assert all(picture.is_visible() for picture in pictures.all())
    assert not page.locator("button:visible, input:visible").count()
    chart(page, "latency").locator("summary").click()
    expect(chart(page, "latency").locator("table.data")).to_be_visible()
    assert page.locator("#chart-latency table.data tbody tr").count() == 60


def test_axe_finds_nothing_on_the_labs_page(visit, pages, axe):
    assert axe(visit((pages / "lab.html").as_uri())) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_beside_curves_can_be_read(visit, pages, scheme):
    """Contrast of every colour of text in charts with the paper: 4.5 to 1, which axe does not measure in drawings."""
    page = visit((pages / "one.html").as_uri(), color_scheme=scheme)
    paper = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    colours = page.locator(".drawing text").evaluate_all("texts => texts.map((text) => getComputedStyle(text).fill)")
    for colour in set(colours):
        low, high = sorted((paper, luminance(colour)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour


def luminance(colour):
    """Relative luminance of `rgb(…)`, as WCAG 2 has it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_two_texts_of_a_chart_overlap(visit, pages, name, width):
    page = visit((pages / f"{name}.html").as_uri(), viewport={"width": width, "height": 900})
    for figure in page.locator("figure.chart").all():
        boxes = figure.locator(".drawing text:visible").evaluate_all(
            "texts => texts.map((text) => [text.textContent, ...Object.values(text.getBoundingClientRect().toJSON())])"
        )
        # Boxes are a little taller than what is written in them.
        for (one, x, y, wide, tall, *_), (other, u, v, w, h, *_) in combinations(boxes, 2):
            apart = x + wide <= u or u + w <= x or y + tall - 4 <= v or v + h - 4 <= y
            assert apart, f"{figure.get_attribute('id')}: {one} and {other}"


CUT_OFF = """figures => figures.flatMap((figure) => {
  const frame = figure.getBoundingClientRect();
  return [...figure.querySelectorAll('.drawing text')].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < frame.left - 12 || box.right > frame.right + 12);
  }).map((text) => `${figure.id}: ${text.textContent}`);
})"""


@pytest.mark.parametrize("name", ["one", "two", "huge", "tiny", "long-names", "lab"])
def test_nothing_is_cut_off_on_a_screen_a_phone_or_paper(visit, pages, name):
    """Texts of charts lie within their figure, or in the page's margin of 16 px beside it; A4 leaves a page 688 px."""
    page = visit((pages / f"{name}.html").as_uri())
    for width, media in ((1280, "screen"), (390, "screen"), (360, "screen"), (688, "print")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(media=media)
        assert page.locator("figure.chart").evaluate_all(CUT_OFF) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width + 4
    assert page.evaluate("getComputedStyle(document.body).printColorAdjust") == "exact"


def test_the_keyboard_reaches_the_content_first(visit, pages):
    page = visit((pages / "one.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_hostile_report_runs_nothing(visit, pages):
    page = visit((pages / "hostile.html").as_uri())
    hover(page, "percentiles", 0.5)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, a[href^='javascript']").count() == 0
