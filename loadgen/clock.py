"""Time, at the only two places where a generator touches it: reading it and sleeping until an instant.

Every instant inside is whole nanoseconds of CLOCK_MONOTONIC, which never steps. `WallOffset` turns them into epoch time
for reports, and turns the kernel's receive stamps (CLOCK_REALTIME) back; it is measured again every second, so that an
adjusted wall clock spoils a second of stamps at most.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time

import gevent
from gevent import get_hub, getcurrent

now_ns = time.monotonic_ns

_QUICK_NS = 500
_READINGS_MAX = 50

_AT_ONCE = 32
"""So many sleeps that are over already, before the event loop gets a turn."""
_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


_SO_TIMESTAMPING = 37
_SOFTWARE_STAMPS = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE and SOF_TIMESTAMPING_SOFTWARE
KERNEL_STAMPS = os.uname().sysname == "Linux" and struct.calcsize("l") == 8
"""Whether this system can stamp arrivals."""


def stamp_arrivals(sock: socket.socket) -> None:
    """Have the kernel note when what this socket receives arrived, where it can."""
    if KERNEL_STAMPS:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _SOFTWARE_STAMPS)


class WallOffset:
    """`wall_ns`: nanoseconds to add to a monotonic instant for epoch time.

    While it exists the kernel goes on stamping. It stops when no socket wants stamps, takes a while to begin again, and
    patches its own code at both: with a connection per request, answers would go without and everything be slower.
    """

    __slots__ = ("_stamped", "wall_ns")

    def __init__(self) -> None:
        self.wall_ns = 0
        self._stamped = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # bound to nothing: it only asks for stamps
        stamp_arrivals(self._stamped)
        self.measure()

    def __del__(self) -> None:
        self._stamped.close()

    def measure(self) -> None:
        """Read both clocks anew: the reading least disturbed in between counts, within 0.25 us if one of 50 was so quick."""
        least = _QUICK_NS * 1_000_000
        for _ in range(_READINGS_MAX):
            before = now_ns()
            wall = time.time_ns()
            spread = now_ns() - before
            if spread < least:
                least, self.wall_ns = spread, wall - before - spread // 2
            if least < _QUICK_NS:
                break


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Sleeps to an instant with the kernel's timer precision.

    libev's own timers go through epoll_wait, which rounds up to whole milliseconds: half a millisecond late on average,
    many times the gap between arrivals at 5,000 a second. A timerfd has no such grain. Where there is none (not Linux),
    gevent's sleep serves.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._passed = 0
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "timerfd_create"):
            self._fd = libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._fd >= 0:
            self._settime = libc.timerfd_settime
            self._watcher = get_hub().loop.io(self._fd, 1)

    def sleep_until(self, instant_ns: int) -> None:
        """Return at the monotonic instant or just after.

        At once when it has passed; but now and then the event loop gets a turn first, so that who is far behind its plan
        starts a few users and sees to their answers, instead of starting all that are due while answers lie about.
        """
        ahead_ns = instant_ns - now_ns()
        if ahead_ns <= 0:
            self._passed += 1
            if self._passed % _AT_ONCE:
                return
        if self._fd < 0:
            gevent.sleep(max(0, ahead_ns) / 1e9)
            return
        spec = _TimerSpec(_Timespec(0, 0), _Timespec(*divmod(instant_ns, 1_000_000_000)))
        self._settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)
        hub, watcher = get_hub(), self._watcher
        watcher.start(getcurrent().switch)
        try:
            hub.switch()
        finally:
            watcher.stop()  # what the timer has to read stays unread: setting it anew takes that back

    def close(self) -> None:
        """Give the timer back."""
        if self._fd >= 0:
            self._watcher.close()
            os.close(self._fd)
            self._fd = -1
