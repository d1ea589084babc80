"""How a session of several runs ends: no signal and no error takes away what was measured until then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIGINT, SIGTERM

from loadgen.runner import Interrupted


@dataclass
class Ending:
    """What ended a session early, if anything did."""

    signal: int | None = None
    """Number of the signal that ended it."""
    error: Exception | None = None

    @property
    def is_early(self) -> bool:
        """Whether something ended it before it was complete."""
        return self.signal is not None or self.error is not None

    def told(self, masked: Callable[[str], str] = str) -> str:
        """The error in one line, "" without one. `masked` removes passwords."""
        return " ".join(masked(str(self.error)).split()) if self.error is not None else ""

    @contextmanager
    def kept(self, is_measured: Callable[[], bool]) -> Iterator[None]:
        """While inside, what ends the session early is kept instead of raised, if anything was measured until then.

        Otherwise it is raised: a signal as Interrupted, but SIGTERM between two runs as SystemExit.
        """
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as interrupted:
            self.signal = interrupted.number if isinstance(interrupted, Interrupted) else SIGINT
            if not is_measured():
                raise Interrupted(self.signal) from None
        except SystemExit:
            self.signal = SIGTERM
            if not is_measured():
                raise
        except Exception as error:
            self.error = error
            if not is_measured():
                raise
