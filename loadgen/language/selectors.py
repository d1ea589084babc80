"""CSS selectors with jQuery's additions, as Artillery's captures may use them. Pure.

Beside what cssselect has, there are jQuery's filters by place (`:first`, `:last`, `:eq(n)`, `:nth(n)`, `:gt(n)`, `:lt(n)`,
`:even`, `:odd`), which pick from everything that the selector before them has found, and its names for kinds of elements
(`:header`, `:input`, `:checkbox` and so on).

Pages come from servers, so the time of a selection must not explode with their size, as that of a whole XPath expression
does: `div div div` in nested elements, `a ~ a` and `:nth-child(2)` among many siblings. Here each part of a selector is found
by itself, and parts are put together in one pass over the page. What takes too long even so is given up (LimitExceeded).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from copy import copy
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import Any

from cssselect import parser
from cssselect.parser import SelectorError
from cssselect.xpath import HTMLTranslator, XPathExpr
from lxml.etree import HTMLParser, XPath

from loadgen.language.limits import LimitExceeded, Stopwatch

Element = Any
_Tree = Any
_Scope = Callable[[list[Element]], list[Element]]
"""Keeps those elements that stand where the first part of a selector must stand."""
_Selection = Callable[["_Page", _Scope | None], list[Element]]
"""Finds elements of a page, in its order; with a scope, those whose first part stands in it."""
_Filter = Callable[[list[Element], int], list[Element]]

_PLACE = re.compile(r":(?:(first|last|even|odd)(?![-\w(])|(eq|nth|gt|lt)\(\s*([+-]?\d+)\s*\))", re.IGNORECASE)
_ITSELF = "itself"
_COMBINATORS = (">", "+", "~")
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


_PLAIN = (parser.Element, parser.Class, parser.Hash, parser.Attrib)
_PLACES = {
    "first-child": ("nth-child", False),
    "last-child": ("nth-last-child", False),
    "first-of-type": ("nth-of-type", False),
    "last-of-type": ("nth-last-of-type", False),
    "only-child": ("nth-child", True),
    "only-of-type": ("nth-of-type", True),
}
"""Pseudo-classes by place: the function that says the same of the first place, and whether it must be the last one, too."""
_PAGE_PIECE = 65536
_MANY_ATTRIBUTES = re.compile(
    rb"""<[a-z][^\s/>]*+ (?: [\s/]*+ [^\s/>][^\s/>=]*+ (?: \s*+ = \s*+ (?: "[^"]*+" | '[^']*+' | [^\s>]*+ ) )?+ ){3000}""",
    re.IGNORECASE | re.VERBOSE,
)
"""A tag with thousands of attributes, which libxml2 compares with each other: 20,000 would take ten seconds."""


class SelectorInvalid(ValueError):
    """Raised for a text that is no selector; the message says why."""


class _Translator(HTMLTranslator):
    def xpath_pseudo(self, pseudo: Any) -> XPathExpr:
        condition = _CONDITIONS.get(pseudo.ident)
        if condition is None:
            return super().xpath_pseudo(pseudo)
        expression: XPathExpr = self.xpath(pseudo.selector)
        return expression.add_condition(condition)


_TRANSLATOR = _Translator()


def parse_page(text: str) -> Element:
    """Parse HTML as browsers do. Returns the root element; raises LimitExceeded (ERR_SELECTOR_LIMIT), and lxml's errors."""
    watch = Stopwatch("ERR_SELECTOR_LIMIT")
    data = text.encode("utf-8", "replace") or b"<html/>"
    page = HTMLParser(encoding="utf-8")
    if len(data) > _PAGE_PIECE and _MANY_ATTRIBUTES.search(data):
        raise LimitExceeded("ERR_SELECTOR_LIMIT")
    for start in range(0, len(data), _PAGE_PIECE):
        page.feed(data[start : start + _PAGE_PIECE])
        watch.check()
    return page.close()


@lru_cache(maxsize=256)
def compile_selector(source: str) -> Callable[[Element], list[Element]]:
    """Compile a selector into a function from the root of a page to the elements it selects, in the order of the page.

    Raises SelectorInvalid. The function raises LimitExceeded (ERR_SELECTOR_LIMIT).
    """
    try:
        groups = [list(_steps(group)) for group in _groups(source)]
    except (SelectorError, RecursionError) as error:
        raise SelectorInvalid(str(error) or "nested too deeply") from None

    def select(root: Element) -> list[Element]:
        page = _Page(root)
        if len(groups) == 1:
            return _selected(page, groups[0])
        wanted = {element for steps in groups for element in _selected(page, steps)}
        return [element for element in page.elements if element in wanted]

    return select


class _Page:
    """The elements of a page, with what is worked out once for all of them; and the time that their selection may take."""

    def __init__(self, root: Element) -> None:
        self.root = root
        self._watch = Stopwatch("ERR_SELECTOR_LIMIT")
        self._places: dict[str, dict[Element, int]] = {}

    @cached_property
    def elements(self) -> list[Element]:
        """All elements, in the order of the page."""
        return list(self.watched(self.root.iter("*")))

    def watched(self, elements: Iterable[Element]) -> Iterator[Element]:
        """The same elements. Raises LimitExceeded once the time is over."""
        for number, element in enumerate(elements):
            if number % 256 == 0:
                self._watch.check()
            yield element

    def places(self, function: str) -> dict[Element, int]:
        """The place of each element among its siblings as a function such as `nth-last-of-type` counts it, from 1."""
        if function not in self._places:
            number: Counter[Any] = Counter()
            found = self._places[function] = {}
            for element in self.watched(reversed(self.elements) if "last" in function else self.elements):
                siblings = element.getparent(), element.tag if "type" in function else ""
                number[siblings] += 1
                found[element] = number[siblings]
        return self._places[function]


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


def _steps(group: str) -> Iterator[tuple[_Selection, str | None, _Filter, int]]:
    """Cut a selector behind each filter by place: what to find, its relation to what the step before it found, the filter."""
    group = group.strip()
    start, place = 0, None
    for at, letter in _depths(group):
        if letter == ":" and at >= start and (place := _PLACE.match(group, at)):
            name = (place[1] or place[2]).lower()
            yield *_step(group[start:at], first=start == 0, last=False), _FILTERS[name], int(place[3] or 0)
            start = place.end()
    if group[start:].strip() or not start:
        yield *_step(group[start:], first=start == 0, last=True), lambda found, _: found, 0


def _step(css: str, *, first: bool, last: bool) -> tuple[_Selection, str | None]:
    bare, relation = css.strip(), None
    if not first:
        relation = " " if css[:1].isspace() else _ITSELF
        if bare[:1] in _COMBINATORS:
            bare, relation = bare[1:].strip(), bare[0]
    if not last and (not bare or bare[-1] in _COMBINATORS):
        # A filter by place alone stands for any element.
        bare += " *"
    (selector,) = parser.parse(bare)
    if selector.pseudo_element is not None:
        raise SelectorError(f"the pseudo-element ::{selector.pseudo_element} selects no element")
    return _compiled(selector.parsed_tree), relation


def _selected(page: _Page, steps: list[tuple[_Selection, str | None, _Filter, int]]) -> list[Element]:
    found: list[Element] = []
    for selection, relation, pick, number in steps:
        scope = None if relation is None else partial(_related, page, relation, set(found))
        found = pick(selection(page, scope), number)
    return found


def _compiled(tree: _Tree) -> _Selection:
    """Compile a part of a selector. Raises SelectorError."""
    if _is_plain(tree):
        return _plain(tree)
    if isinstance(tree, parser.CombinedSelector):
        return _combined(_compiled(tree.selector), tree.combinator, _compiled(tree.subselector))
    inner = _compiled(tree.selector)
    match tree:
        case parser.Negation():
            return _among(inner, [_compiled(tree.subselector)], wanted=False)
        case parser.Matching() | parser.SpecificityAdjustment():
            return _among(inner, [_compiled(each) for each in tree.selector_list], wanted=True)
        case parser.Relation():
            return _having(inner, [(str(part.value), sub.parsed_tree) for part, sub in tree.arguments])
        case parser.Pseudo() if tree.ident in _PLACES:
            function, alone = _PLACES[tree.ident]
            first = _at_place(inner, function, 0, 1)
            return _at_place(first, function.replace("nth-", "nth-last-"), 0, 1) if alone else first
        case parser.Function() if tree.name.startswith("nth-"):
            try:
                return _at_place(inner, tree.name, *parser.parse_series(tree.arguments))
            except ValueError:
                raise SelectorError(f"cannot read the places in :{tree.name}()") from None
    return _where(inner, tree)


def _is_plain(tree: _Tree) -> bool:
    while type(tree) in _PLAIN:
        if isinstance(tree, parser.Element):
            return True
        tree = tree.selector
    return False


def _plain(tree: _Tree) -> _Selection:
    find = XPath(_TRANSLATOR.selector_to_xpath(parser.Selector(tree)))

    def select(page: _Page, scope: _Scope | None) -> list[Element]:
        found: list[Element] = find(page.root)  # type: ignore[assignment] # a path finds elements only
        return found if scope is None else scope(found)

    return select


def _combined(left: _Selection, combinator: str, right: _Selection) -> _Selection:
    def select(page: _Page, scope: _Scope | None) -> list[Element]:
        return _related(page, combinator, set(left(page, scope)), right(page, None))

    return select


def _among(inner: _Selection, others: list[_Selection], *, wanted: bool) -> _Selection:
    def select(page: _Page, scope: _Scope | None) -> list[Element]:
        known = {element for other in others for element in other(page, None)}
        return [element for element in page.watched(inner(page, scope)) if (element in known) is wanted]

    return select


def _having(inner: _Selection, parts: list[tuple[str, _Tree]]) -> _Selection:
    known = [(combinator, _compiled(tree)) for combinator, tree in parts]

    def has(page: _Page, element: Element) -> bool:
        return any(selection(page, partial(_related, page, combinator, {element})) for combinator, selection in known)

    def select(page: _Page, scope: _Scope | None) -> list[Element]:
        found = inner(page, scope)
        if any(isinstance(tree, parser.CombinedSelector) for _, tree in parts):
            return [element for element in found if has(page, element)]
        having = set().union(*(_before(page, combinator, selection(page, None)) for combinator, selection in known))
        return [element for element in found if element in having]

    return select


def _at_place(inner: _Selection, function: str, step: int, start: int) -> _Selection:
    """Keep the elements at the places `start`, `start + step`, `start + 2 * step` and so on."""

    def stands(place: int) -> bool:
        return place == start if step == 0 else (place - start) % step == 0 and (place - start) // step >= 0

    def select(page: _Page, scope: _Scope | None) -> list[Element]:
        found = inner(page, scope)
        places = page.places(function) if found else {}
        return [element for element in page.watched(found) if stands(places[element])]

    return select


def _where(inner: _Selection, tree: _Tree) -> _Selection:
    """Keep the elements for which a condition on the element itself holds, that of the outermost part of the tree."""
    alone = copy(tree)
    alone.selector = parser.Element(None, None)
    holds = XPath(f"boolean({_TRANSLATOR.xpath(alone).condition or 'true()'})")

    def select(page: _Page, scope: _Scope | None) -> list[Element]:
        return [element for element in page.watched(inner(page, scope)) if holds(element)]

    return select


def _related(page: _Page, combinator: str, left: set[Element], found: list[Element]) -> list[Element]:
    """The found elements that stand in this relation to one of `left`."""
    if not left or not found:
        return []
    watched = page.watched(found)
    match combinator:
        case ">":
            return [element for element in watched if element.getparent() in left]
        case "+":
            return [element for element in watched if _neighbour(element) in left]
        case "~":
            return _within(watched, _after(page, left))
        case " ":
            return _within(watched, _below(page, left))
    return _within(watched, left)


def _within(elements: Iterable[Element], known: Container[Element]) -> list[Element]:
    return [element for element in elements if element in known]


def _neighbour(element: Element) -> Element | None:
    """The element before this one, where comments do not count."""
    return next(element.itersiblings("*", preceding=True), None)


def _below(page: _Page, above: Container[Element]) -> set[Element]:
    """The elements inside others."""
    found: set[Element] = set()
    for element in page.watched(page.elements):
        parent = element.getparent()
        if parent in above or parent in found:
            found.add(element)
    return found


def _after(page: _Page, elements: Container[Element], *, backwards: bool = False) -> set[Element]:
    """The elements that have one of these among the siblings before them; with `backwards`, behind them."""
    found, begun = set(), set()
    for element in page.watched(reversed(page.elements) if backwards else page.elements):
        parent = element.getparent()
        if parent in begun:
            found.add(element)
        if element in elements:
            begun.add(parent)
    return found


def _before(page: _Page, combinator: str, found: list[Element]) -> set[Element]:
    """The elements to which one of those found stands in this relation."""
    match combinator:
        case ">":
            return {element.getparent() for element in page.watched(found)}
        case "+":
            return {_neighbour(element) for element in page.watched(found)}
        case "~":
            return _after(page, set(found), backwards=True)
    above: set[Element] = set()
    for element in page.watched(found):
        parent = element.getparent()
        while parent is not None and parent not in above:
            above.add(parent)
            parent = parent.getparent()
    return above
