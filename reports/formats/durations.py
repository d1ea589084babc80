"""Reads durations, counts and sizes as load generators write them: `1.5ms`, `1m2.5s`, `90.4 µs`, `276k`, `12 MB`. Pure."""

from __future__ import annotations

import re

from reports.model import ReportError

# The last ones are "µs" as a console of Windows or a reader of Latin-1 shows it.
_UNITS_MS = {
    "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "secs": 1e3, "m": 6e4, "min": 6e4,
    "h": 3.6e6, "┬╡s": 1e-3, "┬Ás": 1e-3, "Âµs": 1e-3, "\ufffds": 1e-3, "\ufffd\ufffds": 1e-3,
}  # fmt: skip
_UNIT = "|".join(sorted(_UNITS_MS, key=len, reverse=True))
DURATION = rf"(?:[\d.]+ ?(?:{_UNIT})(?![A-Za-zµμ┬Â]))+"
"""A regular expression that matches a duration with its units; it has no groups."""
_PIECE = re.compile(rf"([\d.]+) ?({_UNIT})(?![A-Za-zµμ┬Â])")
_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_AMOUNT = re.compile(r"([\d.]+) ?([kKMG]?)i?B?")


def milliseconds(text: str) -> float:
    """Return a duration in ms. Raises ReportError for anything else."""
    total, at = 0.0, 0
    for piece in _PIECE.finditer(text):
        if text[at : piece.start()].strip():
            break
        total += number(piece[1]) * _UNITS_MS[piece[2]]
        at = piece.end()
    if not at or text[at:].strip():
        raise ReportError(f"{text!r} is not a duration")
    return round(total, 6)


def amount(text: str) -> float:
    """Return a count or size that may be written in thousands, millions and so on. Raises ReportError."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ReportError(f"{text!r} is not a number")
    return number(match[1]) * _PREFIXES[match[2]]


def number(text: str) -> float:
    """Return a decimal number. Raises ReportError for anything else."""
    try:
        return float(text)
    except ValueError:
        raise ReportError(f"{text!r} is not a number") from None
