"""JSONPath finds what jsonpath-plus finds, whose answers are recorded in tests/golden/jsonpath.json."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.language.jsonpath import JsonPathError, check, find_all
from loadgen.language.values import UNDEFINED
from tests.peers.jsonpath_plus import GOLDEN

RECORDED = json.loads(GOLDEN.read_text())
NOTHING, ERROR = {"nothing": True}, {"error": True}


def found(path):
    try:
        values, many = find_all(path, RECORDED["document"])
    except JsonPathError:
        return [ERROR, ERROR]
    values = [None if value is UNDEFINED else value for value in values]
    one = NOTHING if not values else {"value": values if many else values[0]}
    return [{"value": values}, one]


@pytest.mark.parametrize(("path", "expected"), [*zip(RECORDED["paths"], RECORDED["found"], strict=True)])
def test_a_path_finds_what_jsonpath_plus_finds(path, expected):
    assert found(path) == expected


@pytest.mark.parametrize("path", ["$.[[", "$[?(@.a ==)]", "$[?(@.a", "$[?(/(/.test(@.a))]", "$" + ".a" * 5000])
def test_a_path_that_cannot_be_read_is_said_to_be(path):
    with pytest.raises(JsonPathError) as refused:
        check(path)
    assert "\n" not in str(refused.value)


@given(st.text("$.[]?()@'\"abc01-:*^~,=<>&|!+ /", max_size=25))
def test_any_text_is_a_path_or_is_refused(path):
    with suppress(JsonPathError):
        find_all(path, RECORDED["document"])


def test_a_filter_reaches_nothing_but_the_document():
    for path in ("$[?(@.constructor)]", "$[?(__import__('os'))]", "$[?(@.__class__)]", "$[?(@.toString.call)]"):
        with suppress(JsonPathError):
            assert find_all(path, [{"a": 1}])[0] == []
