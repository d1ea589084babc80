"""Charts as one SVG file: readable without the page, by eyes and by screen readers."""

from collections import Counter
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from reports.blocks import Axis, Chart, Series
from reports.page.picture import WIDTH, picture

SVG = "{http://www.w3.org/2000/svg}"
SIZE, RATE = Axis("connections", ""), Axis("requests per second", "/s")


def chart(title, *names):
    series = (Series(name, (1.0, 2.0, 4.0), (10.0, None, 30.0 + i), i) for i, name in enumerate(names))
    return Chart(title, title, "line", SIZE, RATE, tuple(series))


def drawn(*charts):
    return ET.fromstring(picture(charts))


def texts(document):
    return [each.text for each in document.iter() if each.tag in (f"{SVG}text", f"{SVG}tspan")]


def test_every_chart_has_its_title_its_axes_and_a_legend_of_its_lines():
    document = drawn(chart("Throughput", "null", "fair"), chart("p99", "queue"), chart("Waiting", "fair"))
    found = texts(document)
    assert {"Throughput", "p99", "Waiting", "null", "queue", "fair", "connections", "requests per second"} <= set(found)
    assert found.count("fair") == 2
    assert document.find(f"{SVG}title").text.startswith("Throughput: null 10.0 to 30.0 /s; fair 10.0 to 31.0 /s.")


def test_three_charts_are_two_rows_and_one_is_no_wider_than_itself():
    one, three = drawn(chart("a", "x")), drawn(*(chart(title, "x") for title in "abc"))
    assert WIDTH < float(one.get("width")) < WIDTH + 50
    assert float(three.get("width")) > 2 * WIDTH
    assert 1.9 < float(three.get("height")) / float(one.get("height")) < 2.1


@given(
    st.lists(
        st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF).filter(str.isprintable), max_size=60),
        min_size=1,
        max_size=9,
    )
)
def test_any_names_make_a_document_in_which_they_are_text(names):
    document = drawn(chart("t", *names))
    assert Counter(names) <= Counter(text or "" for text in texts(document))
    assert not list(document.iter(f"{SVG}script"))


HOSTILE = "<script>alert(1)</script>\x00\x1b[31m\x9b\u202egnp.exe\u200b&\"'"
SHOWN = "<script>alert(1)</script>\\x00\\x1b[31m\\x9b\\u202egnp.exe\\u200b&\"'"


def test_names_that_a_server_chose_stay_text_in_every_place_of_a_chart():
    axis = Axis(HOSTILE, HOSTILE)
    lines = Chart("t", HOSTILE, "line", axis, axis, (Series(HOSTILE, (1.0, 2.0), (1.0, 2.0), 0),) * 2)
    names = Axis(HOSTILE, scale="category", names=(HOSTILE, "b"))
    bars = Chart("t", HOSTILE, "hbar", axis, names, (Series(HOSTILE, (0.0, 1.0), (1.0, 2.0), 0),))
    for each in (lines, bars):
        document = drawn(each)
        found = [text for text in texts(document) if text] + [document.find(f"{SVG}title").text]
        assert not [text for text in found if not text.isprintable()]
        assert sum(SHOWN in text for text in found) >= 4
        assert not list(document.iter(f"{SVG}script"))
