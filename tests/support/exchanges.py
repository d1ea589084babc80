"""Exchanges with known instants, to be filed without a server."""

from loadgen.http.exchange import Exchange
from loadgen.http.response import ResponseHead
from loadgen.recorder import NO_ENDPOINT


class FixedWall:
    """Monotonic instants are epoch instants: bucket edges fall where the test puts them."""

    wall_ns = 0


def answer(at_ns, *, status=200, waited_ns=1_000_000, body_bytes=5, last_ns=None, fields=b""):
    """An answer whose first byte came at `at_ns`; `fields` are the lines of its head."""
    head = b"HTTP/1.1 %d OK\r\n%s\r\n" % (status, fields)
    return Exchange(
        status, head, b"", body_bytes, False, True, at_ns - waited_ns, at_ns - waited_ns, at_ns - waited_ns,
        at_ns, at_ns if last_ns is None else last_ns, (0, 0, 0), ResponseHead.of(head),
    )  # fmt: skip


def filed(recorder, found, intended_ns=0, endpoint=NO_ENDPOINT):
    """Files an answer as the connection that read it does."""
    recorder.answers(endpoint)(
        found.facts, found.written_ns, found.first_byte_ns, found.last_byte_ns, intended_ns or found.started_ns,
        found.body_bytes, found.stamped, found.facts.plain,
    )  # fmt: skip
