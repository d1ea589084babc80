"""The ports that connections start from: all that the system has for it, or a part where generators share a machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

_IP_LOCAL_PORT_RANGE = 51
"""Of a socket, since Linux 6.3 (ip(7)); not among Python's names yet."""

_LEFT = 8
"""One port in so many is left to others."""
_COUNTED = 512
_BRISK = 0.75
"""How fast is fast: so many connections looked at together, at this share of the even ports in a second or faster."""


@dataclass(frozen=True, slots=True)
class Ports:
    """`first` to `last`, both included."""

    first: int
    last: int

    @property
    def option(self) -> tuple[int, int, int]:
        """Arguments of `setsockopt`, for both versions of IP. A number: Python tries that first, and bytes take it longer."""
        number = self.last << 16 | self.first
        return socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, number - (1 << 32 if number >= 1 << 31 else 0)

    def __len__(self) -> int:
        return self.last - self.first + 1

    def part(self, index: int, of: int) -> Ports:
        """One of `of` parts that have no port in common; all have as many, up to one. Raises ValueError for none left."""
        bounds = [self.first + len(self) * n // of for n in (index, index + 1)]
        if bounds[0] == bounds[1]:
            raise ValueError(f"{len(self)} ports cannot be split among {of}")
        return Ports(bounds[0], bounds[1] - 1)


def ports_here() -> Ports | None:
    """Those that the system picks from for outgoing connections; None where it does not say."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()
    except OSError:
        return None
    return Ports(int(first), int(last))


def ports_to_take() -> Ports | None:
    """Those that a generator may keep its sockets to: not all, since a port stays closed to servers that ask for any port for a
    minute after a connection from it has ended. None where the system can neither tell them nor keep a socket to some of them.
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
    """The part of one of `of` generators on this machine. None, any port: for a single one, and where there are too few."""
    ports = ports_to_take() if of > 1 else None
    return None if ports is None or len(ports) < of else ports.part(index, of)


class LocalPorts:
    """Where each new connection of a generator starts from: among `own` ports, or any.

    Left to itself, Linux tries the even ports one after another, and the odd ones (kept for servers that ask for any port)
    only when no even one is free. A port is not free for a while after its connection was closed, on loopback for a second.
    So whoever opens connections nearly as fast as that makes it go through all even ports, for each connection: a third of
    the generator's CPU at 14,000 a second. A socket with a range of its own takes odd and even ports in one order (since Linux
    6.8). So while connections are opened fast, they are given a range: that of `ports_to_take`.
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
        """For `setsockopt` of a connection that is opened at that monotonic instant; None: nothing needs to be set."""
        self._opened += 1
        if self._opened == _COUNTED:
            if self.own is None:
                self._option = self._range if at_ns - self._since_ns < self._brisk_ns else None
            self._opened, self._since_ns = 0, at_ns
        return self._option
