"""Turns the bytes of a file into text, without what a terminal, a console of Windows or a CI log added to a report.

Removed are colours, a time stamp in front of each line (GitHub, GitLab, Jenkins), and a container's name and a bar in front
of each line (docker compose).
"""

from __future__ import annotations

import codecs
import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_STAMP = re.compile(
    r"^(?:[^\t\n]*\t[^\t\n]*\t)?\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?"
    r"(?: \d\d[OE][ +]|[ \t]|$)",
    re.MULTILINE,
)
# These look like what a tool may have written itself, and go only where nearly all lines have them.
_USUAL = (re.compile(r"\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]? "), re.compile(r"[\w.-]+ +\| ?"))
_NEARLY_ALL = 0.8
_BEGINNING = 1_000_000
"""How many characters are looked at to tell whether lines have something in front."""
_FENCE = re.compile(r"\s*(?:```|~~~)")


_LINE_END = re.compile(r"\r\n|\r|\n")


def lines_of(text: str) -> list[str]:
    """The lines of a text, without their ends. Unlike str.splitlines, only line feeds and carriage returns end one.

    A name may hold a form feed, U+0085 or U+2028.
    """
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def decoded(data: bytes) -> str:
    """Return the text of a file: UTF-16 where it says so, as PowerShell's `>` writes it, else UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def undecorated(text: str) -> str:
    """Return the text as its tool wrote it."""
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if text.lstrip().startswith(("{", "[{", "<")):
        return text
    if _STAMP.search(text[:_BEGINNING]):
        text = _STAMP.sub("", text)
    for prefix in _USUAL:
        written = [line for line in lines_of(text[:_BEGINNING]) if line.strip()]
        if len(written) > 1 and sum(prefix.match(line) is not None for line in written) > _NEARLY_ALL * len(written):
            text = "\n".join(prefix.sub("", line, count=1) for line in text.split("\n"))
    return text


def table(text: str, heading: re.Pattern[str]) -> list[str]:
    """Return the lines of a CSV in a text, from the first that `heading` matches; none without such a line.

    The text may have other lines above, and quote or indent the CSV as Markdown does. Lines of only spaces become empty ones,
    which readers of CSV skip.
    """
    lines = lines_of(text)
    for at, line in enumerate(lines):
        bare = line.lstrip(" \t>\ufeff")
        if heading.match(bare):
            quoted = len(line) - len(bare)
            rows = [row[quoted:] if not row[:quoted].strip(" \t>\ufeff") else row for row in lines[at:]]
            end = next((n for n, row in enumerate(rows) if _FENCE.match(row)), len(rows))
            while end and not rows[end - 1].strip():
                end -= 1
            return [row if row.strip() else "" for row in rows[:end]]
    return []
