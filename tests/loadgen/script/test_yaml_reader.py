"""The YAML flavour of Artillery's scripts."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.script.model import ScriptErrors
from loadgen.script.yaml_reader import plain_scalar, read_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"),
        ("true", True), ("True", True), ("FALSE", False), ("tRUE", "tRUE"),
        ("1e3", 1000), ("0x1F", 31), ("010", 8), ("0b11", 3), ("1_000", 1000), ("1:30", 90), ("-1:30", -90),
        ("0o17", "0o17"), ("08", "08"), ("~", None), ("", None), ("Null", None), ("1.50", 1.5), (".5", 0.5), ("-", "-"),
        ("2024-01-01", "2024-01-01T00:00:00.000Z"), ("500ms", "500ms"), ("1.2.3", "1.2.3"), ("2024-1-1", "2024-1-1"),
    ],
)  # fmt: skip
def test_unquoted_scalars_are_read_as_js_yaml_3_does(written, value):
    assert plain_scalar(written) == value
    assert type(plain_scalar(written)) is type(value)


def test_quoted_scalars_are_texts():
    assert read_yaml("a.yml", "a: '1'\nb: \"yes\"\nc: !!str 5").value == {"a": "1", "b": "yes", "c": "5"}


def test_anchors_aliases_and_merges_work():
    read = read_yaml("a.yml", "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nlist: [*b]").value
    assert read["use"] == {"x": 1, "y": 3}
    assert read["list"] == [{"x": 1, "y": 2}]


def test_every_part_knows_its_line_and_column():
    places = read_yaml("a.yml", "scenarios:\n  - flow:\n      - get:\n          url: /x\n").places
    assert str(places["scenarios[0].flow[0].get.url"]) == "a.yml:4:11: scenarios[0].flow[0].get.url"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "a.yml:3:1: a: duplicated key"),
        ("a: [1", "a.yml:1:6: expected"),
        ("a: *nope", "a.yml:1:4: found undefined alias"),
        ("a: !foo 1", "a.yml:1:4: a: the tag !foo is not supported"),
        ("a:\n\t- b", "a.yml:2:1: a tab: YAML is indented with spaces"),
        ("a:\n  - b\n   c: 1", "a.yml:3:5: a `:` in a place where YAML takes none"),
        ("a:\n  - b: 1\n\n  c: 3", "a.yml:4:3: the indentation does not fit: this line begins at column 3; the list"),
        ("a:\n   b: 1\n  c: 3", "a.yml:3:3: the indentation does not fit: this line begins at column 3; the object"),
        ("--- 1\n--- 2", "expected a single document"),
        ("a: &x [*x]", "an alias of what it stands in"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(text, said):
    with pytest.raises(ScriptErrors) as refused:
        read_yaml("a.yml", text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_json_may_be_indented_with_tabs():
    assert read_yaml("a.json", '{\n\t"a": [\n\t\t1, "b\\tc"]}').value == {"a": [1, "b\tc"]}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcXYZ_", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), values, max_size=4))
def test_any_json_document_reads_as_itself(document):
    assert read_yaml("a.json", json.dumps(document)).value == document


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_otherwise_than_with_its_own_errors(text):
    with suppress(ScriptErrors):
        assert read_yaml("a.yml", text).places
