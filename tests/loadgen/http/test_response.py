"""HTTP responses out of bytes: the fast path agrees with the complete parser, and any split gives the same."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.http.response import MAX_HEAD_BYTES, BadResponse, ResponseReader, parse_common, parse_headers

WHOLE = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "closing": b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "old, kept": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    "interim first": b"HTTP/1.1 103 E\r\nL: a\r\n\r\nHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 1\r\n\r\n!",
}


def read(chunks, **options):
    reader = ResponseReader(**options)
    whole = [reader.feed(chunk) for chunk in chunks]
    return whole[-1], reader.status, reader.head, reader.body, reader.body_bytes, reader.keep_alive


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_byte_by_byte_gives_the_same_as_at_once(data):
    assert read([data]) == read([data[i : i + 1] for i in range(len(data))])
    assert read([data])[0] is True


@given(st.sampled_from(sorted(WHOLE.values())), st.lists(st.integers(0, 120), max_size=6))
def test_any_split_gives_the_same(data, cuts):
    edges = sorted({0, len(data), *(c for c in cuts if c < len(data))})
    chunks = [data[a:b] for a, b in pairwise(edges)]
    assert read(chunks) == read([data])


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_the_fast_path_agrees_with_the_complete_parser(data):
    found = parse_common(data)
    if found is not None:
        body = data[len(found.raw) :]
        assert (True, found.status, found.raw, body, found.length, found.keep_alive) == read([data])


@pytest.mark.parametrize("name", ["plain", "empty", "closing", "old", "old, kept"])
def test_common_responses_take_the_fast_path(name):
    assert parse_common(WHOLE[name]) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"nonsense\r\n\r\n",
    ],
)
def test_anything_unusual_is_left_to_the_complete_parser(data):
    assert parse_common(data) is None


def test_bytes_after_the_end_make_the_connection_useless():
    assert read([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n"])[0] is True
    assert read([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nagarbage"])[5] is False


def test_an_answer_to_head_has_no_body_whatever_it_says():
    assert read([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"], head_only=True)[:2] == (True, 200)


def test_a_body_without_a_frame_ends_with_the_connection():
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc") is False
    assert reader.eof() is True
    assert reader.body == b"abc"


def test_a_framed_body_cut_short_is_no_answer():
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    assert reader.eof() is False


def test_an_unwanted_body_is_counted_and_not_kept():
    assert read([WHOLE["chunked"]], want_body=False)[3:5] == (b"", 5)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "HPE_INVALID_CONSTANT"),
        (b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", "HPE_INVALID_HEADER_TOKEN"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "HPE_INVALID_CONTENT_LENGTH"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "ECONNRESET"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES, "HPE_HEADER_OVERFLOW"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", "HPE_HEADER_OVERFLOW"),
    ],
)
def test_what_is_no_response_has_the_name_that_node_gives_it(data, name):
    with pytest.raises(BadResponse) as error:
        ResponseReader().feed(data)
    assert error.value.name == name


@given(st.binary(max_size=300), st.integers(1, 50))
def test_arbitrary_bytes_are_refused_or_awaited_but_never_crash(data, size):
    reader = ResponseReader()
    name = "HPE_"
    try:
        for start in range(0, len(data), size):
            if reader.feed(data[start : start + size]):
                break
        reader.eof()
    except BadResponse as error:
        name = error.name
    assert name.startswith("HPE_")


def test_headers_keep_order_and_case():
    head = b"HTTP/1.1 200 OK\r\nB: 2 \r\na:1\r\nB: 3\r\n\r\n"
    assert parse_headers(head) == [("B", "2"), ("a", "1"), ("B", "3")]
