"""The report page as a reader uses it."""

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

CHARTS = ("throughput", "failures", "latency", "time-goes-over-time", "percentiles", "histogram", "time-goes")
YAXIS = "document.querySelector('#chart-latency .live').layout.yaxis.type"


def drawn(page, chart):
    """Bring a chart into view and wait until it is drawn."""
    page.locator(f"#chart-{chart}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#chart-{chart}.drawn .live .main-svg")
    page.wait_for_selector(f"#chart-{chart} .controls button")
    return page.locator(f"#chart-{chart}")


def test_the_page_is_usable_within_two_seconds(one, pages):
    entry = one.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    assert entry["domInteractive"] < 2000
    assert one.get_by_role("button", name="Theme").is_visible()
    assert (pages / "one.html").stat().st_size < 6_000_000


def test_every_chart_is_drawn_when_it_comes_near(one):
    assert one.locator("figure[data-chart]").count() == len(CHARTS)
    for chart in CHARTS:
        drawn(one, chart)


def test_hovering_tells_the_figures_of_a_period(one):
    chart = drawn(one, "latency")
    box = chart.locator(".live").bounding_box()
    one.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = chart.locator(".hoverlayer")
    for word in ("p50", "p95", "p99", "ms", "0:"):
        expect(hover).to_contain_text(word)


def test_a_click_in_the_legend_hides_a_curve_and_shows_it_again(one):
    chart = drawn(one, "latency")
    lines = chart.locator(".scatterlayer .trace")
    expect(lines).to_have_count(3)
    p99 = chart.get_by_role("button", name="p99")
    p99.click()
    expect(lines).to_have_count(2)
    expect(p99).to_have_attribute("aria-pressed", "false")
    p99.press("Enter")
    expect(lines).to_have_count(3)


def test_the_scale_can_be_made_logarithmic_and_linear_again(one):
    button = drawn(one, "latency").get_by_role("button", name="Log scale")
    assert one.evaluate(YAXIS) == "linear"
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    assert one.evaluate(YAXIS) == "log"
    button.click()
    assert one.evaluate(YAXIS) == "linear"


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
    chart = drawn(two, "percentiles")
    expect(chart.locator(".scatterlayer .trace")).to_have_count(2)
    assert chart.locator(".legend button").all_text_contents() == ["old.json", "new.json"]


def test_axe_finds_nothing_serious_on_one_report(one, axe):
    drawn(one, "throughput")
    one.locator("#chart-throughput details").evaluate("details => { details.open = true; }")
    assert axe(one) == []


def test_axe_finds_nothing_serious_on_two_reports(two, axe):
    drawn(two, "percentiles")
    assert axe(two) == []


def test_the_theme_is_switched_and_remembered_and_charts_follow(one, axe):
    drawn(one, "throughput")
    ink = "getComputedStyle(document.body).color"
    text = "getComputedStyle(document.querySelector('#chart-throughput .live .xtick text')).fill"
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


def test_print_shows_static_charts_without_controls_on_white(one):
    drawn(one, "throughput")
    one.emulate_media(media="print", color_scheme="dark")
    expect(one.locator("#chart-throughput .plot > svg")).to_be_visible()
    expect(one.locator("#chart-throughput .live")).to_be_hidden()
    expect(one.locator("nav")).to_be_hidden()
    assert one.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    one.emulate_media(media="screen", color_scheme="light")


def test_a_page_with_the_library_beside_it_draws_its_charts(visit, pages):
    drawn(visit((pages / "shared.html").as_uri()), "throughput")


def test_without_scripts_the_same_charts_are_static(visit, pages, axe):
    page = visit((pages / "none.html").as_uri(), color_scheme="dark")
    assert page.locator("script").count() == 0
    pictures = page.locator("figure .plot > svg")
    assert pictures.count() == len(CHARTS)
    assert all(picture.is_visible() for picture in pictures.all())
    assert not page.locator("button:visible, input:visible").count()
    background = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert max(int(part) for part in background[4:-1].split(",")) < 64


def test_axe_finds_nothing_serious_on_the_static_pages(visit, pages, axe):
    for name in ("none", "lab"):
        assert axe(visit((pages / f"{name}.html").as_uri())) == []


@pytest.mark.parametrize("name", ["one", "two", "lab"])
def test_a_phone_needs_no_sideways_scrolling_of_the_page(visit, pages, name):
    page = visit((pages / f"{name}.html").as_uri(), viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_keyboard_reaches_the_content_first(visit, pages):
    page = visit((pages / "none.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_hostile_report_runs_nothing(visit, pages):
    page = visit((pages / "hostile.html").as_uri())
    drawn(page, "throughput")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, a[href^='javascript']").count() == 0
