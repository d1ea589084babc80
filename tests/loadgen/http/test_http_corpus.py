"""A corpus of responses, right and wrong, with what Node.js makes of each; and what becomes of them when bytes are damaged.

`outcomes.json` was made with Node's http client: status, body bytes and the error's code. A new file found by fuzzing goes
beside the others, with what Node says of it.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.http.response import MAX_HEAD_BYTES, BadResponse, ResponseReader, parse_common
from tests.support.paths import GOLDEN

FOLDER = GOLDEN / "http_corpus"
FILES = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.http"))}
OUTCOMES = json.loads((FOLDER / "outcomes.json").read_text())


def read(pieces):
    """What a connection that ends after these pieces would give."""
    reader = ResponseReader()
    try:
        for piece in pieces:
            if piece and reader.feed(piece):
                break
        else:
            if not reader.eof():
                return outcome(reader, "ECONNRESET")
    except BadResponse as error:
        return outcome(reader, error.name)
    return outcome(reader, None)


def outcome(reader, error):
    found = {"status": reader.status} if reader.status else {}
    if error is None:
        assert len(reader.body) == reader.body_bytes
        return {**found, "bytes": reader.body_bytes}
    return {**found, "error": error}


def split(data, cuts):
    places = sorted({min(cut, len(data)) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("name", FILES)
def test_a_response_of_the_corpus_is_what_node_makes_of_it(name):
    assert read([FILES[name]]) == OUTCOMES[name]


@pytest.mark.parametrize("name", FILES)
def test_byte_by_byte_it_is_the_same(name):
    data = FILES[name]
    if len(data) > MAX_HEAD_BYTES:
        pytest.skip("long; any split of it is tried below")
    assert read([data[i : i + 1] for i in range(len(data))]) == OUTCOMES[name]


@pytest.mark.parametrize("name", FILES)
def test_the_fast_path_takes_only_what_node_takes(name):
    head = parse_common(FILES[name])
    if head is not None:
        assert OUTCOMES[name] == {"status": head.status, "bytes": head.length}


@given(st.sampled_from(sorted(FILES)), st.lists(st.integers(0, 20_000), max_size=6))
def test_however_it_is_cut_it_is_the_same(name, cuts):
    assert read(split(FILES[name], cuts)) == OUTCOMES[name]


DAMAGE = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(["drop", "put", "repeat"]), st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


def damaged(data, damage):
    out = bytearray(data)
    for at, kind, piece in damage:
        place = at % (len(out) + 1)
        if kind == "drop":
            del out[place : place + len(piece)]
        elif kind == "put":
            out[place : place + len(piece) - 1] = piece
        else:
            out[place:place] = out[max(0, place - 8) : place]
    return bytes(out)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(FILES)), DAMAGE, st.lists(st.integers(0, 400), max_size=4))
def test_damaged_responses_are_read_or_refused_the_same_however_they_are_cut(name, damage, cuts):
    data = damaged(FILES[name], damage)
    whole, cut = read([data]), read(split(data, cuts))
    # Where the bytes are wrong in two ways, which of the two is met first depends on the cuts.
    assert whole == cut or ("error" in whole and "error" in cut)
    head = parse_common(data)
    if head is not None:
        assert whole == {"status": head.status, "bytes": head.length}
