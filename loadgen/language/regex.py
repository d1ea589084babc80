"""JavaScript's regular expressions, translated into Python's where the syntax differs, with a limit of time. Pure.

The package `regex` matches what `re` matches, and can be told to give up: some expressions take exponentially long on some
texts, and texts come from servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from loadgen.language.limits import EVALUATION_S, LimitExceeded

if TYPE_CHECKING:
    import regex

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}
_DIFFERENT = re.compile(
    r"""\\k<(?P<back>[A-Za-z_$][\w$]*)>
    |(?P<property>\\[pP]\{\w+(?:=\w+)?\})
    |\\(?P<escape>[\s\S])
    |\(\?<(?P<group>[A-Za-z_$][\w$]*)>
    |(?P<brace>\{(?!\d+(?:,\d*)?\}))
    |(?P<empty>\[\]) | (?P<any>\[\^\])
    |(?P<open>\[\^?) | (?P<close>\]) | (?P<end>\$)""",
    re.VERBOSE,
)
# These classes are ASCII in JavaScript and Unicode in Python.
_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_"}
_SAME_ESCAPES = "DWsSbBtnrvfxu"


class Regex:
    """A compiled regular expression."""

    __slots__ = ("_pattern", "_search")

    def __init__(self, pattern: regex.Pattern[str]) -> None:
        self._pattern = pattern
        self._search = pattern.search

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self._pattern.groups)

    @property
    def group_numbers(self) -> Mapping[str, int]:
        """The numbers of the groups that have a name, by name."""
        return dict(self._pattern.groupindex)

    def search(self, text: str) -> regex.Match[str] | None:
        """Return the first match in the text, or None. Raises LimitExceeded (ERR_REGEX_TIMEOUT) after EVALUATION_S."""
        try:
            # Without `concurrent`, other threads wait; there are none that matter.
            return self._search(text, timeout=EVALUATION_S)
        except TimeoutError:
            raise LimitExceeded("ERR_REGEX_TIMEOUT") from None


@lru_cache(maxsize=1024)
def compile_regex(source: str, flags: str = "") -> Regex:
    """Return the expression that matches what JavaScript's `new RegExp(source, flags)` matches.

    Raises re.error for what neither language takes, and for flags that JavaScript does not have.
    """
    # Few scripts have an expression, and this package takes long to import.
    import regex  # noqa: PLC0415

    wanted = re.RegexFlag(0)
    for flag in flags:
        if flag not in "gimsuyd":
            raise re.error(f"unknown flag {flag!r}")
        wanted |= _FLAGS.get(flag, re.RegexFlag(0))
    try:
        return Regex(regex.compile(translated(source, flags), int(wanted) | regex.VERSION0))
    except (regex.error, RecursionError, OverflowError) as error:
        raise re.error(str(error) or "nested too deeply") from None


def group_name(name: str) -> str:
    """Return the name of a JavaScript group in the translated pattern (Python does not allow `$` in group names)."""
    return name.replace("$", "_")


def translated(source: str, flags: str = "") -> str:
    """Return the expression as Python writes it, whether or not it can be compiled."""
    in_class = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal in_class
        found = match.group()
        if match["property"]:
            # Without the flag, JavaScript has no classes by Unicode's properties.
            return found if "u" in flags else f"{found[1]}\\{found[2:]}"
        if match["escape"]:
            return _escape(match["escape"], in_class=in_class)
        if in_class:
            in_class = not match["close"]
            return found.replace("[", "\\[")
        if match["brace"]:
            # A brace that begins no number of repetitions stands for itself.
            return "\\{"
        if match["back"]:
            return f"(?P={group_name(match['back'])})"
        if match["group"]:
            return f"(?P<{group_name(match['group'])}>"
        if match["empty"] or match["any"]:
            return "(?!)" if match["empty"] else r"[\s\S]"
        if match["open"]:
            in_class = True
            return found
        return r"\Z" if match["end"] and "m" not in flags else found

    return _DIFFERENT.sub(replaced, source)


def _escape(letter: str, *, in_class: bool) -> str:
    if letter in _CLASSES:
        return _CLASSES[letter] if in_class else f"[{_CLASSES[letter]}]"
    if letter.isascii() and letter.isalpha() and letter not in _SAME_ESCAPES:
        # An escaped letter without a meaning stands for itself.
        return letter
    return "\\" + letter
