"""Exchanges with known instants, to be filed without a server."""

from loadgen.http.exchange import Exchange
from loadgen.http.response import ResponseHead


class FixedWall:
    """Monotonic instants are epoch instants: bucket edges fall where the test puts them."""

    wall_ns = 0


def answer(at_ns, *, status=200, waited_ns=1_000_000, body_bytes=5, last_ns=None, head=b"HTTP/1.1 200 OK\r\n\r\n"):
    return Exchange(
        status, head, b"", body_bytes, False, True, at_ns - waited_ns, at_ns - waited_ns, at_ns - waited_ns,
        at_ns, at_ns if last_ns is None else last_ns, (0, 0, 0), ResponseHead.of(head),
    )  # fmt: skip
