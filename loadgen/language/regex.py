"""Translates JavaScript's regular expressions into Python's, where the syntax differs. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}
_DIFFERENT = re.compile(
    r"""\\k<(?P<back>[A-Za-z_$][\w$]*)>
    |\\(?P<escape>[\s\S])
    |\(\?<(?P<group>[A-Za-z_$][\w$]*)>
    |(?P<empty>\[\]) | (?P<any>\[\^\])
    |(?P<open>\[\^?) | (?P<close>\]) | (?P<end>\$)""",
    re.VERBOSE,
)
# These classes are ASCII in JavaScript and Unicode in Python.
_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_"}
_SAME_ESCAPES = "DWsSbBtnrvfxu"


@lru_cache(maxsize=1024)
def compile_regex(source: str, flags: str = "") -> re.Pattern[str]:
    """Return the Python pattern that matches what JavaScript's `new RegExp(source, flags)` matches.

    Raises re.error for what neither language takes, and for flags that JavaScript does not have.
    """
    wanted = re.RegexFlag(0)
    for flag in flags:
        if flag not in "gimsuyd":
            raise re.error(f"unknown flag {flag!r}")
        wanted |= _FLAGS.get(flag, re.RegexFlag(0))
    return re.compile(_translated(source, multiline="m" in flags), wanted)


def group_name(name: str) -> str:
    """Return the name of a JavaScript group in the translated pattern (Python does not allow `$` in group names)."""
    return name.replace("$", "_")


def _translated(source: str, *, multiline: bool) -> str:
    in_class = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal in_class
        found = match.group()
        if match["escape"]:
            return _escape(match["escape"], in_class=in_class)
        if in_class:
            in_class = not match["close"]
            return found.replace("[", "\\[")
        if match["back"]:
            return f"(?P={group_name(match['back'])})"
        if match["group"]:
            return f"(?P<{group_name(match['group'])}>"
        if match["empty"] or match["any"]:
            return "(?!)" if match["empty"] else r"[\s\S]"
        if match["open"]:
            in_class = True
            return found
        return r"\Z" if match["end"] and not multiline else found

    return _DIFFERENT.sub(replaced, source)


def _escape(letter: str, *, in_class: bool) -> str:
    if letter in _CLASSES:
        return _CLASSES[letter] if in_class else f"[{_CLASSES[letter]}]"
    if letter.isascii() and letter.isalpha() and letter not in _SAME_ESCAPES:
        # An escaped letter without a meaning stands for itself.
        return letter
    return "\\" + letter
