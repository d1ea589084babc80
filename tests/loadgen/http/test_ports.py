"""Generators on one machine start their connections from ports of their own."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.clock import WallOffset
from loadgen.http.dialer import Dialer
from loadgen.http.exchange import TimeLimits
from loadgen.http.ports import LocalPorts, Ports, ports_here, ports_of, ports_to_take
from loadgen.http.route import Origin


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
        dialer = Dialer(TimeLimits(), WallOffset())
        mine = ports_of(6, 7)
        if mine is None:
            pytest.skip("this system has no ports of a socket's own (Linux before 6.3)")
        dialer.ports = LocalPorts(mine)
        connections = [dialer.open(Origin("http", host, port)) for _ in range(20)]
        seen = [listener.accept() for _ in connections]
        dialer.close()
        for each in [*connections, *(connection for connection, _ in seen)]:
            each.close()
    assert all(mine.first <= peer[1] <= mine.last for _, peer in seen)
    assert mine.last == ports_to_take().last


def test_a_single_generator_has_all_ports():
    assert ports_of(0, 1) is None
    assert LocalPorts(ports_of(0, 1)).own is None


def test_only_who_opens_connections_fast_takes_even_and_odd_ports_in_turn():
    whole = ports_to_take()
    if whole is None:
        pytest.skip("this system has no ports of a socket's own (Linux before 6.3)")
    ports, at_ns, told = LocalPorts(), 10**9, []
    for per_s, opened in ((1000, 2000), (len(whole), 5000), (1000, 2000)):
        for _ in range(opened):
            at_ns += 1_000_000_000 // per_s
            told.append(ports.option(at_ns) == whole.option)
    slow, fast, slow_again = told[:2000], told[2000:7000], told[7000:]
    assert not any(slow)
    assert sum(fast) > 3900  # noticed within a thousand
    assert sum(slow_again) < 1100
    assert not any(slow_again[-500:])


def test_ports_are_left_to_servers_that_ask_for_any():
    whole, taken = ports_here(), ports_to_take()
    if taken is None:
        pytest.skip("this system has no ports of a socket's own (Linux before 6.3)")
    assert taken.first == whole.first
    assert len(taken) == pytest.approx(len(whole) * 7 / 8, abs=1)


def test_a_range_given_to_a_socket_is_the_one_that_is_asked_for():
    whole = ports_to_take()
    if whole is None:
        pytest.skip("this system has no ports of a socket's own (Linux before 6.3)")
    with socket.socket() as sock:
        for mine in (whole, whole.part(0, 2), whole.part(1, 2), Ports(1024, 2000)):
            sock.setsockopt(*mine.option)
            assert sock.getsockopt(*mine.option[:2]) & 0xFFFFFFFF == mine.last << 16 | mine.first
