"""The ports that connections start from: all that the system has for it, or a part where generators share a machine."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_IP_LOCAL_PORT_RANGE = 51
"""Of a socket, since Linux 6.3 (ip(7)); not among Python's names yet."""


@dataclass(frozen=True, slots=True)
class Ports:
    """`first` to `last`, both included."""

    first: int
    last: int

    @property
    def option(self) -> tuple[int, int, bytes]:
        """Arguments of `setsockopt`, for both versions of IP."""
        return socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("=I", self.last << 16 | self.first)

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


def ports_of(index: int, of: int) -> Ports | None:
    """The part of one of `of` generators on this machine. None, any port: for a single one, and where the system can neither
    tell them nor keep a socket to some of them."""
    if of == 1 or (here := ports_here()) is None or len(here) < of:
        return None
    part = here.part(index, of)
    with socket.socket() as trial:
        try:
            trial.setsockopt(*part.option)
        except OSError:
            return None
    return part
