"""CSS selectors with jQuery's additions, as Artillery's captures may use them. Pure.

Beside what cssselect has, there are jQuery's filters by place (`:first`, `:last`, `:eq(n)`, `:nth(n)`, `:gt(n)`, `:lt(n)`,
`:even`, `:odd`), which pick from everything that the selector before them has found, and its names for kinds of elements
(`:header`, `:input`, `:checkbox` and so on).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

from cssselect.parser import PseudoElement, SelectorError
from cssselect.xpath import HTMLTranslator, XPathExpr
from lxml.etree import XPath

Element = Any
_Path = Callable[[Element], list[Element]]
_Filter = Callable[[list[Element], int], list[Element]]

_PLACE = re.compile(r":(?:(first|last|even|odd)(?![-\w(])|(eq|nth|gt|lt)\(\s*([+-]?\d+)\s*\))", re.IGNORECASE)
_AXES = {">": "child::", "+": "following-sibling::*[1]/self::", "~": "following-sibling::"}
_BRACKETS = {"(": 1, "[": 1, ")": -1, "]": -1}
_FILTERS: dict[str, _Filter] = {
    "first": lambda found, _: found[:1],
    "last": lambda found, _: found[-1:],
    "even": lambda found, _: found[::2],
    "odd": lambda found, _: found[1::2],
    "eq": lambda found, n: found[n : n + 1 or None],
    "nth": lambda found, n: found[n : n + 1 or None],
    "gt": lambda found, n: found[n + 1 :] if n >= 0 else found[n + 1 or len(found) :],
    "lt": lambda found, n: found[:n],
}
_TYPES = ("checkbox", "file", "password", "radio", "reset", "image", "submit", "text")
_CONDITIONS = {
    **{name: f"(name(.) = 'input') and (@type = '{name}')" for name in _TYPES},
    "text": "(name(.) = 'input') and (not(@type) or @type = 'text')",
    "button": "(name(.) = 'button') or ((name(.) = 'input') and (@type = 'button'))",
    "header": "contains(' h1 h2 h3 h4 h5 h6 ', concat(' ', name(.), ' '))",
    "input": "contains(' input textarea select button ', concat(' ', name(.), ' '))",
    "parent": "* or text()",
    "selected": "(name(.) = 'option') and @selected",
}
"""jQuery's names for kinds of elements, as conditions of XPath."""


class SelectorInvalid(ValueError):
    """Raised for a text that is no selector; the message says why."""


class _Translator(HTMLTranslator):
    def xpath_pseudo(self, pseudo: Any) -> XPathExpr:
        condition = _CONDITIONS.get(pseudo.ident)
        if condition is None:
            return super().xpath_pseudo(pseudo)
        expression: XPathExpr = self.xpath(pseudo.selector)
        return expression.add_condition(condition)

    def xpath_pseudo_element(self, _: XPathExpr, pseudo_element: PseudoElement) -> XPathExpr:
        raise SelectorError(f"the pseudo-element ::{pseudo_element} selects no element")


_TRANSLATOR = _Translator()


@lru_cache(maxsize=256)
def compile_selector(source: str) -> Callable[[Element], list[Element]]:
    """Compile a selector into a function from the root of a page to the elements it selects, in the order of the page.

    Raises SelectorInvalid.
    """
    try:
        if not _PLACE.search(source):
            return _path(source, "descendant-or-self::")
        groups = [_steps(group) for group in _groups(source)]
    except (SelectorError, RecursionError) as error:
        raise SelectorInvalid(str(error) or "nested too deeply") from None
    return lambda page: _in_page_order(page, (element for steps in groups for element in _selected(page, steps)))


def _path(css: str, prefix: str) -> _Path:
    return cast("_Path", XPath(_TRANSLATOR.css_to_xpath(css, prefix)))


def _depths(source: str) -> Iterator[tuple[int, str]]:
    """Each position and character of a selector that lies outside brackets and quotes."""
    depth, quote, escaped = 0, "", False
    for at, letter in enumerate(source):
        if escaped or letter == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            if not depth:
                yield at, letter
            depth += _BRACKETS.get(letter, 0)


def _groups(source: str) -> list[str]:
    """The parts of a selector between its commas."""
    commas = [at for at, letter in _depths(source) if letter == ","]
    return [source[start + 1 : end] for start, end in pairwise([-1, *commas, len(source)])]


def _steps(group: str) -> list[tuple[_Path, _Filter, int]]:
    """A selector cut behind each filter by place: what to look for from where the step before it ended, and the filter."""
    group = group.strip()
    steps: list[tuple[_Path, _Filter, int]] = []
    start = 0
    for at, letter in _depths(group):
        if letter == ":" and at >= start and (place := _PLACE.match(group, at)):
            name = (place[1] or place[2]).lower()
            steps.append((_relative(group[start:at], first=not steps), _FILTERS[name], int(place[3] or 0)))
            start = place.end()
    if group[start:].strip():
        steps.append((_relative(group[start:], first=not steps), lambda found, _: found, 0))
    return steps


def _relative(css: str, *, first: bool) -> _Path:
    bare = css.strip()
    if first:
        return _path(_whole(bare), "descendant-or-self::")
    if bare[:1] in _AXES:
        return _path(_whole(bare[1:].strip()), _AXES[bare[0]])
    return _path(_whole(bare), "descendant::" if css[:1].isspace() else "self::")


def _whole(css: str) -> str:
    """A selector of any element where there is none, also behind a combinator."""
    return f"{css} *" if css[-1:] in (">", "+", "~") else css or "*"


def _selected(page: Element, steps: list[tuple[_Path, _Filter, int]]) -> list[Element]:
    found = [page]
    for path, pick, number in steps:
        found = pick(_in_page_order(page, (element for context in found for element in path(context))), number)
    return found


def _in_page_order(page: Element, elements: Iterable[Element]) -> list[Element]:
    wanted = set(elements)
    return [element for element in page.iter() if element in wanted]
