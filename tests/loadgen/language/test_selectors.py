"""Selectors over pages of servers: what they find, and that no page makes one take more than about a second."""

import time
from contextlib import suppress

import pytest

from loadgen.language.limits import LimitExceeded
from loadgen.language.selectors import SelectorInvalid, compile_selector, parse_page

PAGE = parse_page("""
<div id=a class="x y"><p id=b>one<b id=c></b></p><!-- no element --><p id=d lang=de>two</p>
<ul id=e><li id=f class=x><a id=g href=1>1</a><li id=h><a id=i>2</a><li id=j class=x disabled></ul></div>
<form id=k><input id=l><input id=m type=checkbox checked><select id=n><option id=o selected>1</select></form>
""")


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("li", "f h j"),
        (".x", "a f j"),
        ("li.x, #b", "b f j"),
        ("div li a", "g i"),
        ("body > div > p", "b d"),
        ("p + p", "d"),
        ("p ~ ul", "e"),
        ("div > p ~ ul > li + li", "h j"),
        ("[href]", "g"),
        ("li:not(.x)", "h"),
        ("li:not(li + li)", "f"),
        ("li:is(.x, :nth-child(2))", "f h j"),
        ("li:nth-child(odd)", "f j"),
        ("li:nth-child(-n+2)", "f h"),
        ("li:nth-last-child(1)", "j"),
        ("p:nth-of-type(2)", "d"),
        ("li:first-child, li:last-child", "f j"),
        ("b:only-child", "c"),
        ("ul:only-of-type", "e"),
        ("p:contains(two)", "d"),
        ("li:has(a)", "f h"),
        ("li:has(> [href])", "f"),
        ("li:has(+ .x)", "h"),
        ("p:has(~ ul)", "b d"),
        ("div:has(ul a)", "a"),
        ("p:lang(de)", "d"),
        ("b:empty", "c"),
        (":checked", "m o"),
        ("li:first", "f"),
        ("li:eq(1) a", "i"),
        ("li:first ~ li:last", "j"),
        ("li.x:last", "j"),
        ("div > :first", "b"),
        ("li:gt(0).x", "j"),
        (":input", "l m n"),
        (":root > body > form", "k"),
    ],
)
def test_what_a_selector_finds_is_in_the_order_of_the_page(selector, found):
    assert [element.get("id") for element in compile_selector(selector)(PAGE)] == found.split()


@pytest.mark.parametrize("selector", ["", "a,", "a[", "::before", "a:no-such", "li:nth-child(x)", "a >", "(" * 5000])
def test_what_is_no_selector_is_refused(selector):
    with pytest.raises(SelectorInvalid):
        compile_selector(selector)


HOSTILE = {
    "nested elements": "<div>" * 100_000,
    "many trees of nested elements": ("<div>" * 250 + "</div>" * 250) * 60,
    "many siblings": "<a href=x></a>" * 10_000,
    "many attributes": "<a " + " ".join(f"a{n}" for n in range(50_000)) + ">",
    "entities of entities": "<!DOCTYPE html [<!ENTITY a '&b;&b;&b;'><!ENTITY b '&a;&a;&a;'>]><p>&a;" + "&b;" * 100_000,
}
SELECTORS = (
    "div div div div",
    "a ~ a",
    "a + a:not(.x)",
    "a:nth-child(2)",
    "div:has(div div)",
    "div:contains(x)",
    "* *",
)


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_page_makes_a_selector_take_long(kind):
    for selector in SELECTORS:
        began_s = time.process_time()
        # Found or given up: either is well.
        with suppress(LimitExceeded):
            compile_selector(selector)(parse_page(HOSTILE[kind]))
        assert time.process_time() - began_s < 4
