"""What a hostile server sends is bounded: bodies, names, cookies, and the time that an expression takes."""

import json
import tracemalloc

import pytest

from loadgen.clock import WallOffset
from loadgen.http.cookies import Jar
from loadgen.http.response import BadResponse, ResponseReader
from loadgen.language.jsonpath import find_all
from loadgen.language.limits import LimitExceeded
from loadgen.language.regex import compile_regex
from loadgen.recorder import Recorder
from reports.formats.artillery_json import from_json
from reports.model import ReportError
from reports.printable import printable


def test_a_body_beyond_the_limit_is_read_but_not_kept():
    reader = ResponseReader(max_body_bytes=10)
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"x" * 11)
    assert (reader.too_large, reader.body, reader.body_bytes) == (True, b"", 11)


def test_a_body_in_pieces_of_one_byte_takes_no_more_than_a_whole_one():
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    tracemalloc.start()
    for _ in range(20):
        reader.feed(b"1\r\na\r\n" * 10_000)
    assert reader.body == b"a" * 200_000
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("piece", [b"1;a=", b"1;", b"0", b"1\r\na\r\n0\r\nX-A: "])
def test_an_answer_that_brings_no_more_of_its_body_is_given_up(piece):
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + piece)
    with pytest.raises(BadResponse, match="ECONNRESET"):
        any(reader.feed(b"0" * 500) for _ in range(40))


def test_a_regular_expression_that_takes_too_long_is_given_up():
    with pytest.raises(LimitExceeded, match="ERR_REGEX_TIMEOUT"):
        compile_regex("(a+)+$").search("a" * 5000 + "!")


def test_a_path_that_finds_too_much_is_given_up():
    with pytest.raises(LimitExceeded, match="ERR_JSONPATH_LIMIT"):
        find_all("$" + "..*" * 12, json.loads("[" * 60 + "1" + "]" * 60))


def test_names_that_a_server_makes_are_bounded_and_counted():
    recorder = Recorder(WallOffset())
    for number in range(1500):
        recorder.sample(f"server.{number}", 1.0)
        recorder.count(f"errors.Invalid URL - {number}")
    total = recorder.report().aggregate
    assert len(total.summaries) == 1000
    assert total.counters["loadgen.dropped"] == 1000
    assert sum(n for name, n in total.counters.items() if name.startswith("errors.")) == 1500


def test_a_jar_keeps_no_more_cookies_than_a_browser():
    jar = Jar()
    for number in range(300):
        jar.store(f"c{number}=1", "a.example", "/", 0.0)
    jar.store(f"long={'x' * 5000}", "a.example", "/", 0.0)
    assert jar.header("a.example", "/", 1.0, secure=True).count("=") == 180
    assert jar.dropped == 121


def test_text_of_others_is_shown_escaped():
    assert printable("a\x1b[31m\x9b\u202eb") == r"a\x1b[31m\x9b\u202eb"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"aggregate": {"counters": {"a": -1}}}', "aggregate.counters.a is negative"),
        ('{"aggregate": {"counters": {"a": 1, "a": 2}}}', "the key a stands twice"),
        ('{"aggregate": {"counters": {"a": 1}, "period": 999999999999999999}}', "aggregate.period is no instant"),
        ('{"aggregate": {"counters": {"a": 1}, "period": -1}}', "aggregate.period is no instant"),
    ],
)
def test_a_report_with_absurd_figures_is_refused_with_their_place(document, said):
    with pytest.raises(ReportError, match=said):
        from_json(document)
