"""Any report from a file or from the published figures. What a file is, its content says, not its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reports import apachebench, artillery_json
from reports.model import Report, ReportError

PUBLISHED = "published:"
"""`published:ID` stands for what a source document published."""

READERS: dict[str, Callable[[str], Report]] = {
    "Artillery JSON": artillery_json.from_json,
    "ApacheBench text": lambda text: apachebench.from_text(text).as_report(),
}
"""Tried in this order. Each raises ReportError for what it does not know."""


def load(spec: str | Path) -> Report:
    """The report in a file, or `published:ID`. Raises ReportError: one line that names it and says what was tried."""
    name = str(spec)
    if name.startswith(PUBLISHED):
        from reports.published import published  # noqa: PLC0415 - its data need not be read for files

        return published(name.removeprefix(PUBLISHED))
    try:
        text = Path(spec).read_text("utf-8-sig", "replace")
    except OSError as error:
        raise ReportError(f"{name}: {error.strerror or error}") from None
    return read(text, name)


def read(text: str, name: str) -> Report:
    """The report in a text; `name` is for the error. Raises ReportError."""
    reasons: list[str] = []
    for kind, reader in READERS.items():
        try:
            return reader(text)
        except ReportError as error:
            reasons.append(f"{kind} ({error})")
    raise ReportError(f"{name}: no report that I can read; tried {', '.join(reasons)}")
