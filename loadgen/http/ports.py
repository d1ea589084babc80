"""The local ports that connections start from: all that the system offers, or a part where generators share a machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

_IP_LOCAL_PORT_RANGE = 51
"""A socket option since Linux 6.3, see ip(7); Python has no name for it yet."""

_LEFT = 8
"""One port in this number is left to other programs."""
_COUNTED = 512
_BRISK = 0.75
"""Connections count as opened fast if the last _COUNTED of them came at a rate of at least this share of the even ports
in a second.
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """A range of ports, from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def option(self) -> tuple[int, int, int]:
        """Arguments of `setsockopt` that keep a socket to these ports, for IPv4 and IPv6.

        The value is a number, because Python takes longer to pass bytes.
        """
        number = self.last << 16 | self.first
        return socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, number - (1 << 32 if number >= 1 << 31 else 0)

    def __len__(self) -> int:
        return self.last - self.first + 1

    def part(self, index: int, of: int) -> Ports:
        """Part number `index` of `of` equal parts with no port in common. Raises ValueError where there are too few ports."""
        bounds = [self.first + len(self) * n // of for n in (index, index + 1)]
        if bounds[0] == bounds[1]:
            raise ValueError(f"{len(self)} ports cannot be split among {of}")
        return Ports(bounds[0], bounds[1] - 1)


def ports_here() -> Ports | None:
    """The ports that the system uses for outgoing connections, or None where it does not say."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()
    except OSError:
        return None
    return Ports(int(first), int(last))


def ports_to_take() -> Ports | None:
    """The ports that a generator may use, or None where the system cannot keep a socket to a range of ports.

    These are not all of the system's: for a minute after a connection from a port has ended, that port cannot be had by
    servers that ask for any free port.
    """
    here = ports_here()
    if here is None:
        return None
    ports = Ports(here.first, here.last - len(here) // _LEFT)
    with socket.socket() as trial:
        try:
            trial.setsockopt(*ports.option)
        except OSError:
            return None
    return ports


def ports_of(index: int, of: int) -> Ports | None:
    """The ports of generator number `index` of `of` on this machine. None (any port) for a single one, or with too few ports."""
    ports = ports_to_take() if of > 1 else None
    return None if ports is None or len(ports) < of else ports.part(index, of)


class LocalPorts:
    """Chooses the ports from which the connections of a generator start: from the range `own`, or any.

    Without a range, Linux tries the even ports one after another, and the odd ones (kept for servers that ask for any port)
    only when no even port is free. A port is not free for some time after its connection was closed, on loopback for a
    second. So a program that opens connections nearly that fast makes Linux go through all even ports for each connection,
    which took a third of the generator's CPU at 14,000 a second. A socket with a range of its own uses odd and even ports
    alike (since Linux 6.8). So while connections are opened fast, they are given the range of `ports_to_take`.
    """

    __slots__ = ("_brisk_ns", "_opened", "_option", "_range", "_since_ns", "own")

    def __init__(self, own: Ports | None = None) -> None:
        self.own = own
        ports = own or ports_to_take()
        self._range = None if ports is None else ports.option
        self._option = None if own is None else self._range
        self._brisk_ns = 0 if ports is None else round(_COUNTED * 1e9 / (len(ports) / 2 * _BRISK))
        self._opened = 0
        self._since_ns = 0

    def option(self, at_ns: int) -> tuple[int, int, int] | None:
        """Arguments of `setsockopt` for a connection that is opened at this monotonic instant; None if none are needed."""
        self._opened += 1
        if self._opened == _COUNTED:
            if self.own is None:
                self._option = self._range if at_ns - self._since_ns < self._brisk_ns else None
            self._opened, self._since_ns = 0, at_ns
        return self._option
