"""The expression language; the expected values are those of filtrex 2.2.3."""

import math

import pytest

from loadgen.language.expressions import ExpressionError, compile_expression
from loadgen.language.regex import compile_regex
from loadgen.language.values import truthy

DATA = {"n": 5, "s": "5", "t": True, "z": 0, "o": {"a": 5}, "a.b": 7, "l": [1, 2], "name": "bob"}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('n == "5"', 1), ("t == 1", 1), ("n != 5", 0), ("not (z)", 1), ("n in (5, 6)", 1), ("n in (5)", 1),
        ("n not in (5, 6)", 0), ("o.a == 5", 0), ("a.b == 7", 1), ("a of o == 5", 1), ('name ~= "b.b"', 1),
        ("2 ^ 3", 8), ("-n", -5), ("n % 3", 2), ("z ? 1 : 2", 2), ("missing == 5", 0), ("not missing", 1),
        ("missing < 5", 0), ("'n' == 5", 1), ("t == true", 0), ("5 / 0", math.inf), ("max(1, n)", 5), ("not n == 5", 0),
        ("1 < n < 3", 1), ('name == "bob" or zzz', 1), ('"" + n', "5"), ("-2 ^ 2", 4), ("n and s", 5),
        ("l in (1, 2, 3)", 1), ("n or name", 5), ('2 < "10"', 1), ("(1)", 1), ("1 + 2 * 3", 7),
        ("n > 3 and not z", 1), ("floor(2.7)", 2), ("round(2.5)", 3),
    ],
)  # fmt: skip
def test_expressions_have_filtrex_values(source, value):
    assert compile_expression(source)(DATA) == value


@pytest.mark.parametrize(
    "source", ["missing", "true", "a.b.c", "z", "not n", "n > 0 and name", "missing or name", "1 and l"]
)
def test_unknown_and_empty_things_are_false(source):
    assert not truthy(compile_expression(source)(DATA))


@pytest.mark.parametrize("source", ["n ==", "n = 5", "n > 3 && z", "()", "foo(1)", "not(n)", "1 2", "'open", ""])
def test_what_is_no_expression_is_refused(source):
    with pytest.raises(ExpressionError):
        compile_expression(source)


@pytest.mark.parametrize(
    ("pattern", "flags", "text", "found"),
    [
        (r"(?<id>\d+)-\k<id>", "", "7-7", "7-7"), (r"[^]b", "", "\nb", "\nb"), (r"a$", "", "a\n", None), (r"\/x", "", "/x", "/x"),
        ("B", "i", "abc", "b"), (r"\d", "", "\u0664", None), (r"[\w-]+", "", "a-b", "a-b"), (r"[[]", "", "[", "["),
    ],
)  # fmt: skip
def test_javascript_regular_expressions_match_as_there(pattern, flags, text, found):
    match = compile_regex(pattern, flags).search(text)
    assert (match and match.group()) == found
