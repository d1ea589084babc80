"""Makes text that a server or another program wrote safe to show: what a terminal or a page would obey is escaped."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """The text with an escape, such as a backslash and x1b, for each control, formatting or bidi character not in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
