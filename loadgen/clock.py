"""Reading the time, and sleeping until an instant: all that a generator does with clocks.

Every instant inside the generator is whole nanoseconds of CLOCK_MONOTONIC, which never steps. `WallOffset` turns them into
epoch time for reports, and turns the kernel's receive stamps (CLOCK_REALTIME) back. It is measured again every second, so
that a wall clock that is set meanwhile spoils the stamps of one second at most.
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
"""After this number of sleeps that were over before they began, the event loop gets a turn."""
_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


_SO_TIMESTAMPING = 37
# The flags SOF_TIMESTAMPING_RX_SOFTWARE and SOF_TIMESTAMPING_SOFTWARE.
_SOFTWARE_STAMPS = 1 << 3 | 1 << 4
KERNEL_STAMPS = os.uname().sysname == "Linux" and struct.calcsize("l") == 8
"""Whether the kernel of this system can note when data arrived."""


def stamp_arrivals(sock: socket.socket) -> None:
    """Ask the kernel to note when the data that this socket receives arrives, where it can."""
    if KERNEL_STAMPS:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _SOFTWARE_STAMPS)


class WallOffset:
    """The difference between the wall clock and CLOCK_MONOTONIC.

    `wall_ns` is what must be added to a monotonic instant to get epoch time, in ns.

    While an object of this class exists, the kernel goes on stamping. It stops when no socket wants stamps, takes a while
    to begin again, and patches its own code each time: with a connection per request, answers would have no stamps, and
    everything would be slower.
    """

    __slots__ = ("_stamped", "wall_ns")

    def __init__(self) -> None:
        self.wall_ns = 0
        # This socket is bound to nothing; it only keeps the kernel stamping.
        self._stamped = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
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
    """Sleeps until an instant, as exactly as the kernel's timers allow.

    libev's own timers go through epoll_wait, which rounds up to whole milliseconds. That is half a millisecond late on
    average, many times the gap between arrivals at 5,000 a second. A timerfd is not rounded. Where there is none (outside
    Linux), gevent's sleep is used.
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
        """Return at this monotonic instant, or just after it; at once if it has passed.

        Even then the event loop gets a turn now and then. So a generator that is far behind its plan starts a few users and
        reads answers in between, instead of starting all users that are due while answers wait to be read.
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
            # The expiry is not read from the timer: setting the timer again clears it.
            watcher.stop()

    def close(self) -> None:
        """Close the timer."""
        if self._fd >= 0:
            self._watcher.close()
            os.close(self._fd)
            self._fd = -1
