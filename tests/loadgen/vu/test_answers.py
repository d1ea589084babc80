"""Captures, matches, expectations and checks on given answers."""

import gzip
import time
import zlib
from random import Random

import brotli
import pytest

from loadgen.language.values import UNDEFINED
from loadgen.script.document import Notes, ScriptNode
from loadgen.script.ensure import apdex_line, checks_of, evaluate
from loadgen.script.model import Capture, Check, Expectation, ExpectPlugin
from loadgen.vu.answer import Answer, decoded
from loadgen.vu.capture import compile_captures
from loadgen.vu.expect import Exchanged, compile_expectations, console_text
from reports.model import Period, Rate, Summary

BODY = b'{"id": 42, "name": "bob", "list": [{"sku": "A1", "p": 1.5}, {"sku": "B2", "p": 2}], "empty": "", "nul": null, "zero": 0}'


def answer(body=BODY, status=200, *fields, content_type="application/json", decode=True):
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n" + "".join(f"{f}\r\n" for f in fields) + "\r\n"
    return Answer(status, head.encode(), body, decode=decode)


def capture(source, expression, into="v", variables=None, strict_default=True, given=None, **spec):
    """(stored, variables) of one capture."""
    held = dict(variables or {})
    rule = Capture(source, expression, spec.pop("strict", None), into=into, **spec)
    ok = compile_captures([rule], {}, Random(1), strict_default=strict_default)(given or answer(), held)
    return ok, held.get(into, "absent")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.id", 42),
        ("id", 42),
        ("$.nul", None),
        ("$.zero", 0),
        ("$.list[1].sku", "B2"),
        ("$['name']", "bob"),
        ('$.list[?(@.sku=="B2")].p', 2),
        ("$.list[?(@.p > 1.6)].sku", "B2"),
        ("$.list.length", 2),
        ("list.length", 2),
        ("$.list[-1:].sku", "B2"),
    ],
)
def test_json_captures_keep_their_types(path, value):
    assert capture("json", path) == (True, value)


def test_of_several_matches_one_is_taken_at_random_or_all_of_them():
    seen = {capture("json", "$..sku", given=answer())[1] for _ in range(3)}
    assert seen <= {"A1", "B2"}
    rng, found = Random(3), set()
    rule = compile_captures([Capture("json", "$.list[*].sku", None, into="v")], {}, rng, strict_default=True)
    for _ in range(50):
        held = {}
        rule(answer(), held)
        found.add(held["v"])
    assert found == {"A1", "B2"}
    assert capture("json", "$..sku", multiple=False) == (True, ["A1", "B2"])


@pytest.mark.parametrize(
    ("source", "expression"),
    [
        ("json", "$.missing"),
        ("json", "$.empty"),
        ("header", "x-none"),
        ("header", "Content-Type"),
        ("regexp", "zzz"),
        ("", ""),
        ("json", "$["),
    ],
)
def test_a_strict_capture_of_nothing_fails_and_stores_nothing(source, expression):
    assert capture(source, expression) == (False, "absent")


def test_a_capture_that_may_fail_makes_its_variable_empty():
    assert capture("json", "$.missing", strict=False) == (True, UNDEFINED)
    assert capture("header", "x-none", strict=False) == (True, "")
    assert capture("json", "$.missing", strict_default=False) == (True, UNDEFINED)
    assert capture("json", "$.missing", strict_default=False, strict=True) == (False, "absent")


def test_a_body_that_is_no_json_fails_its_capture():
    assert capture("json", "$.id", given=answer(b"<html>")) == (False, "absent")


@pytest.mark.parametrize(
    ("pattern", "spec", "value"),
    [
        (r'"id": (\d+)', {"group": 1}, "42"),
        (r'"id": \d+', {}, '"id": 42'),
        (r"(?<nm>b.b)", {"group": "nm"}, "bob"),
        *((r'"id": (\d+)', {"group": group}, '"id": 42') for group in ("id", 7, -1, 1.5, float("inf"), [], "")),
        ("BOB", {"flags": "i"}, "bob"),
    ],
)
def test_regexp_captures(pattern, spec, value):
    assert capture("regexp", pattern, **spec) == (True, value)


@pytest.mark.parametrize(("index", "value"), [(0, "/1"), (1, "/2"), ("last", "/3")])
def test_selector_captures(index, value):
    pytest.importorskip("lxml", reason="lxml is not installed")
    page = answer(
        b'<a class=k href="/1">1</a><a class=k href="/2">2</a><a class=k href="/3">', content_type="text/html"
    )
    assert capture("selector", "a.k", attribute="href", index=index, given=page) == (True, value)
    assert capture("selector", "b", attribute="href", given=page) == (False, "absent")


def test_captures_set_nested_variables_and_expressions_are_templates():
    rule = Capture("json", "$.{{ key }}", None, into="a.b")
    held = {"key": "id"}
    assert compile_captures([rule], {}, Random(1), strict_default=True)(answer(), held)
    assert held["a"] == {"b": 42}


@pytest.mark.parametrize(("expected", "ok"), [(42, True), ("42", False), ("{{ n }}", True), ("{{ s }}", False)])
def test_matches_are_strict_about_types(expected, ok):
    rule = Capture("json", "$.id", None, expected=expected, is_match=True)
    assert compile_captures([rule], {}, Random(1), strict_default=True)(answer(), {"n": 42, "s": "42"}) is ok


def test_nothing_is_stored_when_one_of_several_captures_fails():
    rules = [Capture("json", "$.id", None, into="a"), Capture("json", "$.missing", None, into="b")]
    held = {}
    assert not compile_captures(rules, {}, Random(1), strict_default=True)(answer(), held)
    assert held == {}


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda b: zlib.compress(b)[2:-4]),
        ("br", brotli.compress),
    ],
)
def test_bodies_are_decompressed_before_they_are_looked_into(coding, pack):
    packed = answer(pack(BODY), 200, f"Content-Encoding: {coding}")
    assert capture("json", "$.id", given=packed) == (True, 42)
    assert answer(pack(BODY), 200, f"Content-Encoding: {coding}", decode=False).text != BODY.decode()


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_gzip_body_may_have_several_members(size):
    parts = [b"a" * size, b"", bytes(range(256)) * size]
    packed = b"".join(map(gzip.compress, parts))
    whole = b"".join(parts)
    assert decoded(packed, "gzip") == decoded(packed + b"\0junk", "gzip") == whole
    assert all(decoded(packed, "gzip", most) == whole[: most + 1] for most in (size - 2, size, size + 100))


def test_a_gzip_body_of_endless_members_is_given_up_soon():
    packed = gzip.compress(b"") * 1_000_000
    started = time.process_time()
    assert decoded(packed, "gzip") == packed
    assert time.process_time() - started < 2


def test_a_json_path_that_cannot_be_read_matches_nothing():
    assert capture("json", "$.[[") == (False, "absent")


@pytest.mark.parametrize("query", ["[::0]", f"{'(' * 3000}a{')' * 3000}", "[?b > `1`", f"[{'9' * 30}]", ""])
def test_a_query_that_cannot_be_asked_does_not_hold(query):
    assert judge("jmespath", query, answer(b"[1, 2]")) == (False, "jmespath", query)


def judge(kind, expected, given=None, variables=None):
    check = compile_expectations([Expectation(kind, expected)], ExpectPlugin(), {})
    results, messages = check(given or answer(), variables or {})
    return (results[0].ok, results[0].kind, results[0].got) if results else messages


@pytest.mark.parametrize(
    ("kind", "expected", "result"),
    [
        ("statusCode", 200, (True, "statusCode", 200)),
        ("statusCode", "200", (True, "statusCode", 200)),
        ("statusCode", [201, 200], (True, "statusCode", 200)),
        ("statusCode", "{{ c }}", (False, "statusCode", 200)),
        ("notStatusCode", 500, (True, "notStatusCode", 200)),
        ("contentType", "json", (True, "contentType", "json")),
        ("contentType", "text/html", (False, "contentType", "application/json")),
        ("hasProperty", "list[0].sku", (True, "hasProperty", "list[0].sku")),
        ("hasProperty", "nope", (False, "hasProperty", "response body has no nope property")),
        ("notHasProperty", "id", (False, "notHasProperty", "response body has id property")),
        ("equals", ["{{ c }}", 404, "404"], (True, "equals", "404, 404, 404")),
        ("equals", [1, 2], (False, "equals", "1, 2")),
        ("hasHeader", "content-type", (True, "hasHeader", "content-type")),
        (
            "headerEquals",
            ["content-type", "application/json"],
            (True, "header content-type values equals", "application/json"),
        ),
        ("headerEquals", ["x-a", "1"], (False, "header x-a values equals", "response has no x-a header")),
        ("matchesRegexp", "obj", (True, "matchesRegexp", True)),
        ("jmespath", "list[0].sku == 'A1'", (True, "jmespath", "list[0].sku == 'A1'")),
        ("cdnHit", True, (False, "cdnHit", "cache status header not found")),
        ("wrong", 1, ["Expect Plugin: Expectation 'wrong' is not supported"]),
    ],
)
def test_expectations(kind, expected, result):
    assert judge(kind, expected, variables={"c": 404}) == result


def test_without_expectations_the_default_one_may_be_wanted():
    assert compile_expectations([], ExpectPlugin(), {}) is None
    results, _ = compile_expectations([], ExpectPlugin(default_200=True), {})(answer(status=500), {})
    assert not results[0].ok


def shown(output, status=200):
    results, _ = compile_expectations([Expectation("statusCode", 200)], ExpectPlugin(), {})(answer(b"no", status), {})
    exchanged = Exchanged("GET", "http://h/x?q=1", "/x?q=1", "named", None, answer(b"no", status), {"v": 1, "$env": {}})
    return console_text(results, exchanged, output)


def test_the_pretty_output_names_the_request_and_each_result():
    assert shown("pretty") == "* GET /x?q=1 - named\n\n  ok statusCode 200 "
    failed = shown("pretty", 500).split("\n")
    assert failed[2:6] == ["  not ok statusCode 500 ", "  expected: 200", "       got: 500", "  Request params:"]
    assert failed[-3:] == ["no", "  User variables:", "    v: 1"]


def test_the_other_outputs():
    assert shown("silent", 500) == shown("prettyError") == ""
    assert shown("prettyError", 500) == shown("pretty", 500)
    wanted = '{"name":"named","url":"/x?q=1","results":[{"ok":true,"expected":200,"type":"statusCode","got":200}]}'
    assert shown("json") == wanted


AGGREGATE = Period(
    0,
    {
        "vusers.created": 10,
        "vusers.completed": 9,
        "http.codes.200": 5,
        "apdex.satisfied": 1,
        "apdex.tolerated": 0,
        "apdex.frustrated": 1,
    },
    {"http.request_rate": Rate(7)},
    {
        "http.response_time": Summary(1, 90, 5, 20, 10, 20, 30, 80, 90, 90),
        "plugins.x.response_time./a/{{ id }}": Summary(1, 2, 1, 1, 1, 1, 1, 1, 1, 1),
    },
)


def verdict(ensure):
    return evaluate(checks_of(ScriptNode(ensure, "ensure", Notes({}))), AGGREGATE)


def test_checks_are_shown_passed_first_and_each_group_backwards():
    ensure = {
        "thresholds": [{"http.response_time.p99": 100}, {"http.codes.200": 3}],
        "conditions": [
            {"expression": "http.request_rate > 5 and http.codes.200 == 5"},
            {"expression": "http.codes.5xx < 1", "strict": False},
        ],
        "p95": 80,
        "max": "900ms",
        "maxErrorRate": 10,
    }
    assert verdict(ensure).lines == (
        "ok: maxErrorRate < 10",
        "ok: max < 900",
        "ok: http.request_rate > 5 and http.codes.200 == 5",
        "ok: http.response_time.p99 < 100",
        "fail: p95 < 80",
        "fail: http.codes.5xx < 1 (optional)",
        "fail: http.codes.200 < 3",
    )
    assert verdict(ensure).failed


def test_an_optional_check_does_not_fail_the_run():
    assert not verdict({"conditions": [{"expression": "nope > 1", "strict": False}]}).failed


@pytest.mark.parametrize("expression", ["vusers.created <", "nope < 1", "p95"])
def test_broken_expressions_and_unknown_metrics_fail(expression):
    assert evaluate((Check(expression, expression),), AGGREGATE).failed


def test_check_lines_are_in_artillerys_order_of_results():
    # These lines are what Artillery 2.0.34 printed for this section and a run with these figures.
    counters = {"http.codes.200": 2, "http.requests": 2, "http.responses": 2, "vusers.created": 2, "vusers.failed": 0,
                "vusers.completed": 2}  # fmt: skip
    times = Summary(20, 23, 2, 21, 20, 20, 20, 20, 20, 20)
    ensure = {
        "maxErrorRate": 50,
        "thresholds": [{"http.codes.200": 3}, {"no.such.metric": 1}, {"http.requests": 1}, {"vusers.created": 9}],
        "conditions": [
            {"expression": "http.requests"},
            {"expression": "http.requests > 1", "strict": False},
            {"expression": "http.requests >", "strict": False},
            {"expression": "http.requests == 2"},
            {"expression": "http.requests - 5", "strict": False},
            {"expression": "http.responses - 1"},
            {"expression": "no.such", "strict": False},
            {"expression": "http.requests < 0", "strict": False},
            {"expression": "vusers.failed == 0"},
        ],
        "p99": 9000,
        "max": 1,
        "min": 9000,
    }
    checks = checks_of(ScriptNode(ensure, "ensure", Notes({})))
    result = evaluate(checks, Period(0, counters, {}, {"http.response_time": times}))
    assert result.failed
    assert result.lines == (
        "ok: maxErrorRate < 50",
        "ok: vusers.failed == 0",
        "fail: no.such (optional)",
        "fail: http.requests > (optional)",
        "fail: http.requests",
        "ok: min < 9000",
        "ok: p99 < 9000",
        "ok: http.responses - 1",
        "ok: http.requests == 2",
        "ok: http.requests > 1",
        "ok: vusers.created < 9",
        "ok: http.codes.200 < 3",
        "fail: max < 1",
        "fail: http.requests < 0 (optional)",
        "fail: http.requests < 1",
        "fail: no.such.metric < 1",
        "fail: http.requests - 5 (optional)",
    )


def test_error_rate_counts_users_and_its_bound_is_included():
    assert not verdict({"maxErrorRate": 10}).failed
    assert verdict({"maxErrorRate": 9}).failed


def test_metric_names_may_hold_templates_and_apdex_is_one():
    assert not verdict({"thresholds": [{"plugins.x.response_time./a/{{ id }}.p95": 5}, {"apdex": 0.6}]}).failed


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((1, 0, 1), "Apdex score: 0.5 (poor)"),
        ((94, 0, 6), "Apdex score: 0.94 (excellent)"),
        ((1, 2, 0), "Apdex score: 0.6666666666666666 (poor)"),
        ((0, 0, 0), None),
    ],
)
def test_the_apdex_score(counts, line):
    assert (
        apdex_line(dict(zip(("apdex.satisfied", "apdex.tolerated", "apdex.frustrated"), counts, strict=True))) == line
    )
