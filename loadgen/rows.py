"""Raw rows: one line for each request of a run, streamed to a CSV file while it runs, or turned into Parquet at its end.

All workers append to one file: each writes whole lines in one call, which the kernel puts behind one another (O_APPEND). A
worker keeps at most a few hundred rows in memory. A disk that is full is told once, and never ends the run: the rows after
that are missing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadgen.clock import WallOffset
from loadgen.http.exchange import Exchange, Failure
from reports.files import WriteError, check_writable

COLUMNS = (
    ("worker", "int32"),
    ("scenario", "string"),
    ("name", "string"),
    ("method", "string"),
    ("url", "string"),
    ("status", "int32"),
    ("error", "string"),
    ("intended_ns", "int64"),
    ("started_ns", "int64"),
    ("written_ns", "int64"),
    ("first_byte_ns", "int64"),
    ("end_ns", "int64"),
    ("body_bytes", "int64"),
)
"""Name and type of each column. Instants are ns since the epoch; a value that is not known is empty."""
ENDINGS = (".csv", ".parquet")
_FLUSH_ROWS = 500
_BEGINNINGS_MAX = 1000
_SPECIAL = re.compile(r'[",\r\n]|^\s|\s$')
_TAIL_BYTES = 1 << 16


class RowsError(Exception):
    """Raised where the file of rows cannot be made. The message is one line."""


@dataclass(frozen=True, slots=True)
class RowsFile:
    """An open file for rows, which the processes of a run share."""

    path: str
    """The name that it will have at the end."""
    descriptor: int


class Rows:
    """The rows of one process, on their way to the file."""

    def __init__(self, file: RowsFile, wall: WallOffset, warn: Callable[[str], None]) -> None:
        """`wall` gives instants their epoch time. `warn` takes a warning for the report."""
        self.worker = 0
        """Number of this process among the workers of the run."""
        self._file, self._wall, self._warn = file, wall, warn
        self._lines: list[str] = []
        self._beginnings: dict[tuple[str | None, str | None, str, str], str] = {}
        self._lost = False

    def add(
        self,
        scenario: str | None,
        name: str | None,
        method: str,
        url: str,
        intended_ns: int,
        result: Exchange | Failure,
    ) -> None:
        """Add a finished request. `intended_ns` is when the plan wanted it, 0 for when it was started."""
        key = scenario, name, method, url
        begin = self._beginnings.get(key) or self._beginning(key)
        wall_ns = self._wall.wall_ns
        started_ns = result.started_ns + wall_ns
        planned_ns = intended_ns + wall_ns if intended_ns else started_ns
        if isinstance(result, Failure):
            answer, error, end_ns = result.response, _field(result.name), result.at_ns + wall_ns
        else:
            answer, error, end_ns = result, "", result.last_byte_ns + wall_ns
        if answer is None:
            line = f"{begin},{error},{planned_ns},{started_ns},,,{end_ns},0\n"
        else:
            line = (
                f"{begin}{answer.status},{error},{planned_ns},{started_ns},{answer.written_ns + wall_ns},"
                f"{answer.first_byte_ns + wall_ns},{end_ns},{answer.body_bytes}\n"
            )
        self._lines.append(line)
        if len(self._lines) >= _FLUSH_ROWS:
            self.flush()

    def _beginning(self, key: tuple[str | None, str | None, str, str]) -> str:
        """The first columns of a row. They are the same for many requests, and so are kept."""
        if len(self._beginnings) >= _BEGINNINGS_MAX:
            self._beginnings.clear()
        made = self._beginnings[key] = ",".join((str(self.worker), *map(_field, key), ""))
        return made

    def flush(self) -> None:
        """Append the rows so far to the file. What it has no room for is lost, with one warning."""
        text = "".join(self._lines)
        self._lines.clear()
        if self._lost or not text:
            return
        try:
            _append(self._file.descriptor, text.encode("utf-8", "replace"))
        except OSError as error:
            self._lost = True
            self._warn(f"cannot write {self._file.path}: {error.strerror}; the rows after that are missing")


def _field(text: str | None) -> str:
    """A text as a field of CSV (RFC 4180)."""
    if text and _SPECIAL.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text or ""


def _append(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def rows_file(path: str) -> Iterator[RowsFile]:
    """While inside, a file for rows is open. At the end it becomes Parquet, if it is so named.

    Raises RowsError where the file cannot be made, at the beginning or at the end.
    """
    if not path.endswith(ENDINGS):
        raise RowsError(f"must end in {' or '.join(ENDINGS)}, not {path!r}")
    parquet = path.endswith(".parquet")
    if parquet:
        _library()
        try:
            check_writable(Path(path))
        except WriteError as error:
            raise RowsError(str(error)) from None
    text_path = f"{path}.csv" if parquet else path
    try:
        descriptor = os.open(text_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    except OSError as error:
        raise RowsError(f"cannot write {text_path}: {error.strerror}") from None
    try:
        with suppress(OSError):
            _append(descriptor, (",".join(name for name, _ in COLUMNS) + "\n").encode())
        yield RowsFile(path, descriptor)
    finally:
        # Also after a run that has failed: its rows may say why.
        _cut_to_whole_lines(text_path, descriptor)
        os.close(descriptor)
        if parquet:
            _convert(text_path, path)


def _cut_to_whole_lines(path: str, descriptor: int) -> None:
    """Take away the part of a row at the end of a file that had no room for the rest of it."""
    with suppress(OSError):
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return
        with Path(path).open("rb") as file:
            file.seek(max(0, about.st_size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(descriptor, about.st_size - len(tail) + tail.rfind(b"\n") + 1)


def _library() -> None:
    """Raise RowsError where the library for Parquet is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - an extra, which takes a second to import
    except ModuleNotFoundError:
        raise RowsError(".parquet needs pyarrow, which is not installed: pip install '.[parquet]'") from None


def _convert(text_path: str, path: str) -> None:
    """Turn the CSV file into Parquet, a piece at a time, and remove it. Raises RowsError, and leaves the CSV file then."""
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import csv as arrow_csv  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    types = {name: getattr(pa, kind)() for name, kind in COLUMNS}
    # By itself, pyarrow takes names such as NA, null and nan for no value, too.
    options = arrow_csv.ConvertOptions(
        column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    parsing = arrow_csv.ParseOptions(newlines_in_values=True)
    try:
        with (
            arrow_csv.open_csv(text_path, convert_options=options, parse_options=parsing) as pieces,
            parquet.ParquetWriter(path, pieces.schema) as writer,
        ):
            for piece in pieces:
                writer.write_batch(piece)
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError):
            Path(path).unlink()
        said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).partition("\n")[0]
        raise RowsError(f"cannot write {path}: {said}; the rows are in {text_path}") from None
    Path(text_path).unlink(missing_ok=True)
