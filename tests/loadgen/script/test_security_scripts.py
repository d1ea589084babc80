"""Scripts and answers that mean harm: each is one clear line or a bounded value, soon, and never a traceback."""

import gzip
import resource
import subprocess
import sys
import time
import zlib
from itertools import pairwise
from random import Random

import brotli
import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.language.expressions import ExpressionError, compile_expression
from loadgen.language.fakes import fake_functions
from loadgen.language.limits import LimitExceeded
from loadgen.language.template import compile_template, functions
from loadgen.language.values import UNDEFINED, get_path, number, number_text
from loadgen.script.model import Capture
from loadgen.vu.answer import Answer
from loadgen.vu.capture import compile_captures

TARGET = "config:\n  target: http://127.0.0.1:1\n"
FLOW = "scenarios:\n  - flow:\n      - get: {url: /}\n"
LETTERS = "abcdefghij"


def bomb(first: str, line: str) -> str:
    """Each line stands for the one before it, nine times."""
    following = (line.format(new, ", ".join([f"*{old}"] * 9)) for old, new in pairwise(LETTERS))
    return f"a: &a {first}\n" + "\n".join(following) + "\n"


def checked(tmp_path, text, *options, name="s.yml"):
    path = tmp_path / name
    path.write_text(text, errors="surrogatepass")
    started = time.process_time()
    done = CliRunner().invoke(cli, ["run", "--check", str(path), *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert time.process_time() - started < 20
    return done


@pytest.mark.parametrize(("text", "said"), [
    (bomb("[x]", "{0}: &{0} [{1}]"), "aliases make the script too large"),
    (bomb("{k: v}", "{0}: &{0} {{<<: [{1}]}}"), "aliases make the script too large"),
    ("x: &x [*x]\n", "an alias of what it stands in"),
    ("x: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
    ("x: " + "{a: " * 500, "nested too deeply"),
    ("x:\n" + "".join(" " * i + "- \n" for i in range(1, 200)), "nested too deeply"),
    ("x: !!python/object/apply:os.system [id]", "tag"),
    ('x: "\\UFFFFFFFF"', "an escape stands for no character"),
    ("x: \0", "special characters"),
])  # fmt: skip
def test_a_hostile_document_is_refused_in_a_line(tmp_path, text, said):
    done = checked(tmp_path, TARGET + FLOW + text)
    assert done.exit_code == 1 and said in done.stderr
    assert done.stderr.startswith(f"Error: {tmp_path / 's.yml'}:") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("config", [
    "phases: [{duration: %s, arrivalRate: 1}]" % ("9" * 400), "phases: [{duration: 1, arrivalCount: 0x%s}]" % ("f" * 5000),
    "payload: {path: s.yml, fields: 5}", "payload: {path: s.yml, fields: [a], options: [1]}",
    'payload: {path: "a\\0b", fields: [a]}',
    "payload: {path: /dev/zero, fields: [a]}", "tls: {key: /dev/zero}", "processor: /dev/zero.py",
])  # fmt: skip
def test_a_value_of_the_wrong_size_or_kind_is_refused_with_its_place(tmp_path, config):
    done = checked(tmp_path, f"{TARGET}  {config}\n{FLOW}")
    assert done.exit_code == 1 and all(":3:" in line and "config." in line for line in done.stderr.splitlines())


@pytest.mark.parametrize("config", [
    "timeout: " + "9" * 5000, "timeout: 0x" + "f" * 5000, "http: {pool: .inf}", "variables: {a: 0001-01-01T00:00:00+23:00}",
    "variables: {a: '{{ $randomString(99999999999) }}'}", "variables: {a: '{{ $randomString(1e400) }}'}",
    "variables: {a: '{{ $randomNumber(1, 2, 3) }}'}", "variables: {a: '{{ $randomNumber(0, 0x%s) }}'}" % ("f" * 3000),
    "variables: {a: '{{ $x(%s'}" % (" " * 60_000), "phases: [{duration: 1, arrivalRate: 1, maxVusers: 1e300}]",
])  # fmt: skip
def test_a_huge_number_is_a_number_as_in_javascript(tmp_path, config):
    assert checked(tmp_path, f"{TARGET}  {config}\n{FLOW}").exit_code in (0, 1)


def test_thousands_of_unknown_keys_are_not_all_guessed_at(tmp_path):
    keys = "".join(f"  k{i}: 1\n" for i in range(3000))
    assert checked(tmp_path, TARGET + keys + FLOW).exit_code == 0


@pytest.mark.parametrize("option", ["--overrides", "--variables"])
@pytest.mark.parametrize("value", ['{"a":' * 900 + "1" + "}" * 900, '{"a": ' + "9" * 5000 + "}", "[" * 100_000, "NaN"])
def test_options_in_json_are_held_to_the_same(tmp_path, option, value):
    done = checked(tmp_path, TARGET + FLOW, option, value)
    assert done.exit_code in (0, 1) and len(done.stderr.splitlines()) <= 1


def test_a_bomb_is_refused_within_a_small_memory(tmp_path):
    path = tmp_path / "s.yml"
    path.write_text(bomb("[x]", "{0}: &{0} [{1}]") + TARGET + "  payload: {path: /dev/zero, fields: [a]}\n" + FLOW)
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))  # noqa: E731
    command = [sys.executable, "-m", "loadgen", "run", "--check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=limit)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    "source", ["(" * 5000 + "1" + ")" * 5000, "-" * 100_000 + "1", "not " * 9000 + "1", " or ".join("a" * 9000)]
)
def test_an_expression_that_could_exhaust_the_stack_is_refused(source):
    with pytest.raises(ExpressionError, match=r"too (long|deeply)"):
        compile_expression(source)


@pytest.mark.parametrize(
    "source", ["9 ^ 9 ^ 9 ^ 9", " * ".join(["9" * 300] * 200), "round(1 / 0)", "9" * 5000, "round(0 / 0)"]
)
def test_arithmetic_is_that_of_doubles(source):
    assert isinstance(compile_expression(source)({}), int | float)


def test_templates_within_templates_end():
    variables = {"a": "{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}"}
    started = time.process_time()
    filled = compile_template("x {{ a }}", functions(Random(1))).render(variables)
    assert len(filled) < 20_000_000 and time.process_time() - started < 10


def test_random_texts_have_at_most_a_million_characters():
    calls = functions(Random(1)) | fake_functions({"internetPassword": {"length": 1e12}}, Random(1))
    assert len(calls["$randomString"](1e300)) == len(calls["$internetPassword"]()) == 1_000_000
    assert calls["$randomString"](float("nan")) == ""


@pytest.mark.parametrize("digits", ["9" * 5000, "0x" + "f" * 5000, "1e999"])
def test_numbers_without_end_are_infinite(digits):
    assert number_text(number(digits)) == "Infinity"


def test_odd_indexes_find_nothing():
    for path in ("a[" + "9" * 5000 + "]", "a.\u00b2", "a.\u0663"):
        assert get_path({"a": [1, 2, 3, 4]}, path) is UNDEFINED


# Answers


def answer(body: bytes, coding: str = "") -> Answer:
    field = f"Content-Encoding: {coding}\r\n" if coding else ""
    return Answer(200, f"HTTP/1.1 200 OK\r\n{field}\r\n".encode(), body, decode=True, largest_bytes=LARGEST_BYTES)


LARGEST_BYTES = 16_000_000
BOMB = b"0" * (LARGEST_BYTES + 50_000_000)


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress)]
)
def test_a_compression_bomb_is_too_large_a_body(coding, pack):
    packed = pack(BOMB) if coding != "br" else pack(BOMB, quality=1)
    assert len(packed) < 200_000
    with pytest.raises(LimitExceeded, match="ERR_BODY_TOO_LARGE"):
        _ = answer(packed, coding).text
    assert len(answer(pack(BOMB[:LARGEST_BYTES]), coding).text) == LARGEST_BYTES
    assert answer(pack(b"plain"), coding).text == "plain"


def capture(answer, **given):
    spec = {"source": "json", "expression": "$.a", "into": "b", "strict": True, **given}
    defaults = {
        "multiple": True,
        "group": None,
        "flags": "",
        "attribute": None,
        "index": 0,
        "expected": None,
        "is_match": False,
    }
    variables = {}
    taken = compile_captures([Capture(**{**defaults, **spec})], {}, Random(1), strict_default=True)(answer, variables)
    return taken, variables


@pytest.mark.parametrize(
    "body", [b'{"a":' + b"[" * 1020 + b"]" * 1020 + b"}", b"[" * 100_000, b'{"a": 1e999}', b"\xff\xfe"]
)
def test_an_answer_that_is_nested_too_deeply_fails_its_capture(body):
    assert capture(answer(body)) == (False, {})


def test_a_value_is_not_put_at_the_far_end_of_a_list():
    assert capture(answer(b'{"a": 1}'), into="b[999999999999]") == (True, {"b": {"999999999999": 1}})
    assert capture(answer(b'{"a": 1}'), into="b[2]") == (True, {"b": [UNDEFINED, UNDEFINED, 1]})
