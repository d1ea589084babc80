"""Templates: types, missing variables, functions."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.language.template import compile_template, functions, placeholders
from loadgen.language.values import UNDEFINED, get_path, json_text, json_value, number_text, path_steps, set_path, text

VARIABLES = {
    "n": 5, "half": 0.5, "whole": 2.0, "s": "hi", "t": True, "nul": None, "zero": 0, "empty": "",
    "list": [1, {"x": 2}], "o": {"a": {"b": [7]}, "k.v": 1}, "nest": "{{ s }}!", "my var": 3, "a-b": 4,
}  # fmt: skip
CALLS = functions(Random(7))


def render(template):
    return compile_template(template, CALLS).render(VARIABLES)


@pytest.mark.parametrize("name", ["n", "half", "s", "t", "nul", "zero", "empty", "list", "o"])
def test_a_lone_placeholder_keeps_its_type(name):
    for template in (f"{{{{ {name} }}}}", f"{{{{{name}}}}}", f"{{{{{{ {name} }}}}}}"):
        assert render(template) == VARIABLES[name]
        assert type(render(template)) is type(VARIABLES[name])


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ n }} ", "5 "), ("x{{ list }}", 'x[1,{"x":2}]'), ("{{ nul }}{{ t }}", "nulltrue"), ("{{ whole }}!", "2!"),
        ("a{{ missing }}", "aundefined"), ("{{ n + 1 }}", "{{ n + 1 }}"), ("{{ n | x }}-{{ n }}", "{{ n | x }}-5"),
        ("{{ o.a.b[0] }}", 7), ("{{ o['a'].b.length }}", 1), ("{{ list[1].x }}", 2), ("{{ my var }}", 3), ("{{ a-b }}", 4),
        ("<{{ nest }}>", "<hi!>"), ("{{ s[0] }}", "h"), ("{{ s.length }}", 2), ("{{", "{{"), ("{{}}", "{{}}"),
    ],
)  # fmt: skip
def test_templates_render_as_artillery_renders_them(template, value):
    assert render(template) == value


def test_a_missing_variable_alone_is_undefined_and_leaves_objects_but_is_null_in_lists():
    assert render("{{ missing }}") is UNDEFINED
    assert render({"a": "{{ missing }}", "b": ["{{ missing }}", 1], "c": {"d": "{{ missing }}"}}) == {
        "b": [None, 1],
        "c": {},
    }


def test_keys_are_templates_too():
    assert render({"k{{ n }}": "{{ n }}", "{{ s }}": 1}) == {"k5": 5, "hi": 1}


def test_functions_give_text_and_may_be_mixed_and_repeated():
    assert render("{{ $randomNumber(7, 7) }}") == "7"
    mixed = render("{{ $randomNumber(1, 9) }}/{{ n }}/{{ $randomString(4) }}")
    first, middle, last = mixed.split("/")
    assert first.isdigit() and middle == "5" and len(last) == 4 and last.isalnum()
    assert len(render("{{ $randomString() }}")) == 10


def test_random_numbers_reach_both_ends():
    assert {render("{{ $randomNumber(1, 3) }}") for _ in range(200)} == {"1", "2", "3"}


def test_an_unknown_function_makes_the_whole_undefined():
    assert render("{{ $randomInt(1, 2) }}") is UNDEFINED
    assert render("x {{ $randomInt(1, 2) }}") is UNDEFINED


def test_what_has_no_placeholder_is_known_to_be_constant():
    for constant in ("plain", "{{ n + 1 }}", 5, None, {"a": [1, "b"]}):
        compiled = compile_template(constant, CALLS)
        assert compiled.constant and compiled.render({}) == constant
    assert not compile_template({"a": ["{{ n }}"]}, CALLS).constant


def test_a_text_tells_its_variables():
    assert placeholders("{{ a.b }}-{{ $f(1) }}-{{c}}") == ["a.b", "c"]


@given(st.text(st.characters(exclude_characters="{}"), max_size=20), st.integers())
def test_text_around_a_placeholder_stays_as_it_is(around, number):
    compiled = compile_template(around + "{{ v }}" + around, {})
    rendered = compiled.render({"v": number})
    assert rendered == (number if not around else f"{around}{number_text(number)}{around}")


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (1.0, "1"),
        (0.7, "0.7"),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (1.5e-5, "0.000015"),
        (-0.5, "-0.5"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_read_as_in_javascript(number, shown):
    assert number_text(number) == shown


def test_whole_numbers_of_answers_keep_their_digits_up_to_64_bits():
    shown = json_text(
        json_value("[9007199254740993, 18446744073709551615, 18446744073709551616, 1e20, 123456789012345678901]")
    )
    assert (
        shown
        == "[9007199254740993,18446744073709551615,18446744073709552000,100000000000000000000,123456789012345680000]"
    )


def test_values_as_text_and_as_json():
    assert text([1, None, "a"]) == "1,,a"
    assert text({"a": 1}) == "[object Object]"
    assert json_text({"a": UNDEFINED, "b": [UNDEFINED, "é"]}) == '{"b":[null,"é"]}'
    assert json_value('{"a": 1.0, "b": [2.50]}') == {"a": 1, "b": [2.5]}


def test_paths_are_walked_and_made():
    assert path_steps("a.b[0]['k.x']") == ("a", "b", "0", "k.x")
    assert get_path(VARIABLES, "o['k.v']") == 1
    shared = {"x": {"y": 1}}
    variables = dict(shared)
    set_path(variables, "x.z[1]", 5)
    assert variables == {"x": {"y": 1, "z": [UNDEFINED, 5]}}
    assert shared == {"x": {"y": 1}}, "what others share is not changed"
