"""Generators on one machine start their connections from ports of their own."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.clock import WallOffset
from loadgen.exchange import Dialer, Limits
from loadgen.ports import Ports, ports_here, ports_of
from loadgen.route import Origin


@given(st.integers(1, 65535), st.integers(1, 65535), st.integers(1, 50))
def test_parts_are_disjoint_and_together_the_whole(one, other, of):
    whole = Ports(min(one, other), max(one, other))
    if len(whole) < of:
        with pytest.raises(ValueError, match="cannot be split"):
            [whole.part(index, of) for index in range(of)]
        return
    parts = [whole.part(index, of) for index in range(of)]
    assert [port for part in parts for port in range(part.first, part.last + 1)] == [
        *range(whole.first, whole.last + 1)
    ]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_connections_start_from_the_ports_of_their_generator(family):
    with socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family) as listener:
        host, port = listener.getsockname()[:2]
        dialer = Dialer(Limits(), WallOffset())
        dialer.ports = mine = ports_of(6, 7)
        if mine is None:
            pytest.skip("this system has no ports of a socket's own (Linux before 6.3)")
        connections = [dialer.open(Origin("http", host, port)) for _ in range(20)]
        seen = [listener.accept() for _ in connections]
        dialer.close()
        for each in [*connections, *(connection for connection, _ in seen)]:
            each.close()
    assert all(mine.first <= peer[1] <= mine.last for _, peer in seen)
    assert mine.last == ports_here().last


def test_a_single_generator_has_all_ports():
    assert ports_of(0, 1) is None
