"""Blocks in every format: what each shows of a block, and that text stays text."""

import json
import re
from dataclasses import fields
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.blocks import (
    ABSENT,
    Axis,
    Cell,
    Chart,
    Charts,
    Code,
    Column,
    Facts,
    Figure,
    Figures,
    Items,
    Page,
    Section,
    Series,
    Table,
    Text,
    decimal,
)
from reports.writers.json_text import plain_values, to_json
from reports.writers.markdown import to_markdown
from reports.writers.output import STYLES, style_of, written
from reports.writers.text import to_text
from tests.support.paths import ROOT

TABLE = Table(
    "t",
    "A table",
    (Column("name"), Column("ms", "number"), Column("verdict", "mark"), Column("reason", aside=True)),
    ((Cell("first"), Cell("1.50", 1.5), Cell("worse", tone="bad"), Cell("late")),
     (Cell("second"), Cell(ABSENT), Cell("same"), Cell(""))),
    note="A note.",
    quiet="rows alike",
)  # fmt: skip
CHART = Chart("c", "A chart", "line", Axis("x"), Axis("y"), (Series("s", (1.0, 2.0), (3.0, 4.0)),))
BLOCKS = (
    Figures((Figure("Requests", "12", "in 3 s"),)),
    TABLE,
    Facts("Machine", (("cpu", "a CPU"),)),
    Text("A sentence."),
    Text("A warning.", "warn"),
    Items((Text("plain item"), Text("met", "good"))),
    Code("Script", "config:\n  target: x"),
    Charts((CHART,)),
)


def page(*blocks, title="A section", **options):
    return Page("A title", "a subtitle", (Section("one", title, blocks), Section("two", "Other", ())), **options)


@pytest.mark.parametrize("style", STYLES)
def test_every_kind_of_block_is_in_every_format(style):
    text = written(page(*BLOCKS), style)
    for said in (
        "Requests",
        "12",
        "first",
        "1.50",
        "a CPU",
        "A sentence.",
        "plain item",
        "met",
        "target: x",
        "A note.",
    ):
        assert said in text
    assert ("A chart" in text) == (style == "html")


def test_text_aligns_tables_and_leaves_out_what_only_a_page_has_room_for():
    lines = to_text(page(TABLE)).splitlines()
    at = lines.index("name      ms  verdict")
    assert lines[at + 1 : at + 4] == ["first   1.50  worse", "second     -  same", "A note."]
    assert "late" in written(page(TABLE), "html")


def test_text_for_a_terminal_fits_into_its_width():
    row = Cell("time from the planned start"), Cell("-100.0% to +1288.7%"), Cell("cannot be judged (too little data)")
    columns = Column("figure"), Column("interval of the change", "number"), Column("verdict", "mark")
    table = Table("t", "", columns, (row,), note="Times are in ms, and each of them is a mean of all rounds.")
    shown = (
        table,
        Text("Judged as 'loadgen diff --fail-on worse' does it, with all the rules."),
        Items((Text("a b " * 20),)),
    )
    wide, narrow = (to_text(page(*shown), width=width) for width in (None, 50))
    assert wide.split() != narrow.split() and sorted("".join(wide.split())) == sorted("".join(narrow.split()))
    assert max(map(len, narrow.splitlines())) <= 50 < max(map(len, wide.splitlines()))
    assert "--fail-on" in narrow and "-100.0% to +1288.7%" in narrow


def test_a_narrow_table_breaks_headings_first_and_numbers_after_commas_only():
    columns = Column("strategy"), Column("100 users: published", "number")
    table = Table("t", "", columns, ((Cell("one pool"), Cell("116, 71 % failed")),))
    shown = [to_text(page(table), width=width).splitlines() for width in (32, 26, 24)]
    assert shown[0][-2:] == ["strategy  100 users: published", "one pool      116, 71 % failed"]
    assert shown[1][-3:] == ["strategy        100 users:", "                 published", "one pool  116, 71 % failed"]
    assert shown[2][-2:] == ["one pool         116,", "          71 % failed"]


def test_one_section_alone_stands_without_headings():
    alone = Page("A title", "", (Section("one", "A section", (Text("said"),)),))
    assert (to_text(alone), to_markdown(alone)) == ("said\n", "said\n")


def test_rows_of_sentences_are_written_below_each_other():
    prose = Table("p", "", (Column("claim"), Column("why")), ((Cell("it is quick"), Cell("caches")),), prose=True)
    assert "it is quick\n    why  caches\n" in to_text(page(prose))


def test_folded_columns_are_told_below_the_table_in_markdown_and_on_demand_on_a_page():
    columns = Column("verdict", "mark"), Column("claim"), Column("why", folded=True)
    prose = Table("p", "", columns, ((Cell("met"), Cell("it is quick"), Cell("caches")),), prose=True)
    text = to_markdown(page(prose))
    assert "| met | it is quick |\n" in text
    assert "<details><summary>Each in detail</summary>\n\n- it is quick.  \n  why: caches\n\n</details>" in text
    assert "<dt>why</dt><dd>caches</dd>" in written(page(prose), "html")


def test_a_folded_section_and_table_are_details_on_a_page():
    sections = (
        Section("a", "Said", (Text("first"),)),
        Section("b", "Folded", (TABLE,), folded=True),
        Section("c", "In b", (), 3),
    )
    html = written(Page("t", "", sections), "html")
    outer = html.index("<details", html.index("<main"))
    assert (
        html.index("first")
        < outer
        < html.index('id="b"')
        < html.index("table-t")
        < html.index('id="c"')
        < html.rindex("</details>")
    )


def test_facts_without_a_caption_are_lines_alone():
    assert to_text(Page("", "", (Section("one", "", (Facts("", (("cpu", "a CPU"),)),)),))) == "cpu  a CPU\n"


def test_quiet_rows_are_folded_away_in_markdown_and_stand_last_on_a_page():
    text = to_markdown(page(TABLE))
    assert text.index("| first |") < text.index("<details><summary>1 rows alike</summary>") < text.index("| second |")


def test_a_tone_is_a_colour_on_demand():
    assert "\x1b[31mfirst" in to_text(page(TABLE), colour=True)
    assert "\x1b" not in to_text(page(TABLE))


@given(st.text())
def test_no_text_reaches_a_terminal_but_as_printable_characters(text):
    blocks = Text(text), Facts(text, ((text, text),)), Code(text, text)
    sections = Section("a", text, blocks, lead=text), Section("b", text, (TABLE,), 3, lead=text)
    shown = to_text(Page(text, text, sections))
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_code_cannot_end_its_fence_in_markdown():
    assert "````\n```\n````" in to_markdown(page(Code("c", "```")))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/a?x=1&copy;=2 _x_", "/a?x=1&amp;copy;=2 \\_x\\_"),
        ("http.response_time.p95 of __init__", "http.response_time.p95 of \\_\\_init\\_\\_"),
        ("~~gone~~ $x$ a*b `c` [d](e) <f>", "\\~\\~gone\\~\\~ \\$x\\$ a\\*b \\`c\\` \\[d\\](e) &lt;f>"),
        ("@me, me@home and @ last", "@<!-- -->me, me@<!-- -->home and @ last"),
        ("# one", "\\# one"), ("- one", "\\- one"), ("12. one", "12\\. one"), (">one", "\\>one"),
        ("---", "\\---"), ("===", "\\==="), ("-", "-"), ("p99 > 5", "p99 > 5"),
    ],
)  # fmt: skip
def test_no_text_becomes_markup_in_markdown(text, written):
    assert to_markdown(Page("", "", (Section("a", "", (Text(text),)),))) == f"{written}\n"
    assert to_markdown(Page("", "", (Section("a", "", (Code("c", text),)),))) == f"c:\n\n```\n{text}\n```\n"


def test_json_has_the_values_of_a_section_or_else_its_blocks_and_no_charts():
    sections = (
        Section("a", "A", (TABLE,), data={"x": 1}),
        Section("b", "B", (Text("said"), Charts((CHART,)))),
        Section("c", "C", (Text("part of b"),), 3),
    )
    document = json.loads(to_json(Page("t", "", sections, {"partial": False})))
    assert document == {"a": {"x": 1}, "b": [{"text": "said", "tone": ""}], "partial": False}


def test_what_json_has_no_word_for_becomes_null_or_a_near_value():
    assert plain_values([nan, inf, None, True, 2**70, (1,), "\ud800"]) == [None, None, None, True, 2.0**70, [1], "?"]
    assert set(plain_values(TABLE)) == {f.name for f in fields(Table)}
    with pytest.raises(TypeError):
        plain_values(object())


@pytest.mark.parametrize(
    ("style", "output", "chosen"),
    [(None, None, "text"), (None, "a.md", "markdown"), (None, "a.HTML", "html"), (None, "a.htm", "html"), (None, "a", "text"),
     (None, "a.json", "json"), (None, "a.csv", "text"), ("json", "a.md", "json")],
)  # fmt: skip
def test_the_format_is_the_one_asked_for_or_that_of_the_files_name(style, output, chosen):
    assert style_of(style, output) == chosen


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1e4, 4, "10000"), (12345.6, 4, "12346"), (1e6, 6, "1000000"), (12.5, 6, "12.5"), (10, 6, "10"), (0.0, 3, "0"),
     (0.00012, 2, "0.00012"), (9.996, 3, "10"), (-1234.5, 3, "-1234"), (inf, 6, ABSENT), (nan, 6, ABSENT)],
)  # fmt: skip
def test_a_number_in_a_sentence_has_no_exponent(value, digits, text):
    assert decimal(value, digits) == text


@given(st.floats(-1e15, 1e15), st.integers(1, 12))
def test_a_number_in_a_sentence_is_the_number(value, digits):
    text = decimal(value, digits)
    assert re.fullmatch(r"-?\d+(\.\d*[1-9])?", text)
    assert float(text) == pytest.approx(value, rel=10 ** (1 - digits))


def test_no_sentence_is_written_with_a_format_that_may_give_an_exponent():
    for room in ("loadgen", "reports"):
        for path in (ROOT / room).rglob("*.py"):
            # `svg.py` writes figures for its script, and the reader of hey's text compares keys.
            if path.name not in ("svg.py", "hey.py"):
                found = re.search(r":\+?(\.\d)?[ge]\}", path.read_text().replace('float(f"{value:.5g}")', ""))
                assert found is None, f"{path}: {found}; see reports.blocks.decimal"
