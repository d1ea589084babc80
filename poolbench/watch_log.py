"""Output of watching: who holds a connection, a line in the log when a request got none in time, files for `loadgen doctor`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns

from poolbench import observed as seen
from poolbench.findings import Diagnosis
from poolbench.loan_book import LoanBook
from poolbench.loans import Loan
from poolbench.looking import Looker
from poolbench.observed import LoanSum, Observed
from poolbench.repeats import TEXT_LENGTH
from poolbench.tally import count_engine, loan_key

_LOG = logging.getLogger("poolbench")
_LOG_EVERY_NS = 10_000_000_000
_LOOK_EVERY_NS = 200_000_000


@dataclass(frozen=True, slots=True)
class Holder:
    """A borrower that holds a connection at this moment. Fields that are not known are empty."""

    borrowed_at: str
    """The application's line that borrowed the connection: file:line."""
    endpoint: str
    """The endpoint that is being answered, such as GET /books."""
    seconds: float
    """How long the connection has been held."""
    doing: str
    """What the borrower is doing, one of the words in observed.py; a statement with its text."""
    where: str
    """The application's line where the borrower is now: file:line."""


def holders(book: LoanBook, looker: Looker) -> tuple[Holder, ...]:
    """The holders of all connections that are lent by the engines of the book, those that have held one longest first."""
    frames, now_ns = sys._current_frames(), perf_counter_ns()  # noqa: SLF001
    askers = {ask.borrower: ask for ask in list(book.asks) if ask.outer is not None}
    found = []
    for _, loan in book.all_loans():
        doing, place, _ = looker.doing(loan, frames, askers, 1)
        seconds = round((now_ns - loan.lent_ns) / 1e9, 3)
        text = doing
        if doing == seen.STATEMENT:
            statement = looker.statement(loan, frames) or loan.statement
            text = f"{doing}: {' '.join(statement.split())[:TEXT_LENGTH]}"
        found.append(Holder(str(loan.place or ""), loan.endpoint, seconds, text, str(place or "")))
    return tuple(sorted(found, key=lambda holder: -holder.seconds))


class TimeoutLog:
    """Logs, as one line of JSON, that a wait for a connection timed out; at most once in ten seconds.

    `holders` and `diagnosis` are called to say who holds the connections then, and what was found in the last minute.
    """

    def __init__(self, holders: Callable[[], tuple[Holder, ...]], diagnosis: Callable[[], Diagnosis]) -> None:
        self._holders, self._diagnosis = holders, diagnosis
        self._logged_ns = -_LOG_EVERY_NS

    def log(self, loan: Loan) -> None:
        """Log that this loan got no connection in time, as a warning of the logger `poolbench`."""
        now_ns = perf_counter_ns()
        if now_ns - self._logged_ns < _LOG_EVERY_NS:
            return
        self._logged_ns = now_ns
        told = {
            "event": "no connection in time",
            "waited_ms": round((loan.ended_ns - loan.asked_ns) / 1e6),
            "asked_at": str(loan.place or ""),
            "endpoint": loan.endpoint,
            "holders": [asdict(each) for each in self._holders()],
            "findings": [each.to_json() for each in self._diagnosis().findings],
        }
        _LOG.warning(json.dumps(told, ensure_ascii=False))


class EvidenceFiles:
    """Writes what a process has seen into `folder`, as the JSON file PROCESS.observed.

    It is due when the command has made a file `report` there, or when the process ends. Before, the command has written the
    instant at which the load began into a file `load`, and waits for the file PROCESS.begun of each process that watches.

    Methods that write raise OSError if the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked, self._load = str(folder / "report"), str(folder / "load")
        self._began_ns = self._looked_ns = 0
        self._has_noted_foreign: set[int] = set()

    def announce(self, process: int) -> None:
        """Make the file PROCESS.watching, which says that this process watches; `process` is its id."""
        (self._folder / f"{process}.watching").touch()

    def load_began_ns(self) -> int:
        """When the load began, in ns of perf_counter_ns(), which all processes of a machine share; 0 before."""
        if not self._began_ns and os.path.exists(self._load):  # noqa: PTH110 - called many times a second
            self._began_ns = int(Path(self._load).read_text())
        return self._began_ns

    def has_begun(self, process: int) -> None:
        """Make the file PROCESS.begun, which says that this process has forgotten what was before the load."""
        (self._folder / f"{process}.begun").touch()

    def is_asked_for(self) -> bool:
        """Whether the command has asked for the files; looked for a few times a second, as each time lets another thread run."""
        now_ns = perf_counter_ns()
        if now_ns - self._looked_ns < _LOOK_EVERY_NS:
            return False
        self._looked_ns = now_ns
        return os.path.exists(self._asked)  # noqa: PTH110 - called many times a second

    def write_once(self, process: int, observed: Callable[[], Observed]) -> None:
        """Write what `observed` returns into PROCESS.observed, unless the file exists."""
        if not (self._folder / f"{process}.observed").exists():
            self._write(str(process), observed())

    def note_foreign(self, process: int, loan: Loan) -> None:
        """Write at once, into PROCESS-forked.observed, that `loan` uses a connection which another process opened.

        It is not left for later, because a forked child may end at any time.
        """
        if process in self._has_noted_foreign:
            return
        self._has_noted_foreign.add(process)
        found = Observed()
        count_engine(found, loan.engine)
        # The process says at its end that it was there.
        found.engines[loan.engine.key].processes = 0
        found.loans[loan_key(loan)] = LoanSum(count=1, foreign=1)
        self._write(f"{process}-forked", found)

    def _write(self, name: str, found: Observed) -> None:
        written = self._folder / f"{name}.writing"
        written.write_text(json.dumps(found.to_json()))
        written.rename(self._folder / f"{name}.observed")
