"""Makes text safe to show: what a terminal or a page would obey is escaped, and passwords are taken out of URLs."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"""((["'])(?:(?!\2).)*?://)(?:(?!\2).)*@|(://)(?:\\.|\S)*@""", re.DOTALL)
"""What stands before a URL's host, in a quoted word of a command and in any other; up to the last @, as in a password."""
_PASSWORD_OF_QUERY = re.compile(r"""([?&](?:ssl)?password=)[^&\s'"]*""", re.IGNORECASE)

_SECRET_OPTION = re.compile(
    r"""((?<!\S)--(?:[\w-]*-)?(?:password|passwd|secret|secret-key|token|api-key)(?:=|\s+(?!-)))"""
    r"""(?:"(?:\\.|[^"])*"|'[^']*'|(?:\\.|[^\s\\'"])+)""",
    re.IGNORECASE,
)
"""An option whose value is a secret, and that value."""


def printable(text: str, keep: str = "") -> str:
    """The text with an escape, such as a backslash and x1b, for each control, formatting or bidi character not in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(ord(c)) for c in text)


def without_credentials(text: str) -> str:
    """A command with a mark in place of the user and the password of each URL in it, and of passwords given as options."""
    return _SECRET_OPTION.sub(r"\1…", _PASSWORD_OF_QUERY.sub(r"\1…", _CREDENTIALS.sub(r"\1\3…@", text)))


def shown_url(text: str) -> str:
    """What was given as a URL, which it need not be, with a mark in place of its user and its password."""
    before, at, place = text.rpartition("@")
    scheme, mark, _ = before.partition("://")
    return f"{scheme}{mark}…@{place}" if at and mark else f"…@{place}" if at else text


def url_fault(error: ValueError, text: str) -> str:
    """What the parser says about `text`, which was given as a URL; it may quote a part of the password, if there is one."""
    return "its user, password, host or port cannot be read" if "@" in text else str(error)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
