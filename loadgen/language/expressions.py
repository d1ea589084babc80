"""The expression language of `ifTrue` and of the conditions of `ensure`. Pure: text in, a Python function out.

It has numbers, "texts" in double quotes, variables (a dot is part of the name; single quotes allow any character in a name),
the operators `+ - * / % ^`, `== != < <= > >=`, `~=` (regular expression), `in (a, b)`, `not in`, `and`, `or`, `not`,
`c ? a : b`, parentheses, and the functions abs ceil floor log max min random round sqrt. A word operator and a parenthesis
need a space between them. Precedence, lowest first, all left-associative: `?:`, or, and, in, equality, order, sum, product,
power, not, minus. This is the grammar of filtrex 2, which Artillery uses. Values compare as in JavaScript: `5 == "5"` holds,
and an unknown variable is undefined, hence false.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from loadgen.language.operators import ORDER, add, divide, multiply, remainder, subtract
from loadgen.language.regex import compile_regex
from loadgen.language.values import UNDEFINED, integer, loosely_equal, strictly_equal, text, to_number, truthy

Expression = Callable[[Mapping[str, Any]], Any]

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?\b)
    |(?P<name>[a-zA-Z$_][.a-zA-Z0-9$_]*)
    |'(?P<quoted>(?:\\'|\\\\|[^'\\])*)'
    |"(?P<text>(?:\\"|\\\\|[^"\\])*)"
    |(?P<operator>==|!=|~=|>=|<=|[*/+^%(),<>?:-]))""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "not", "in", "of"}
_MOST_TOKENS = 500
"""Longest expression, in tokens: a compiled expression is nested function calls, and a longer one could exhaust the stack."""


class ExpressionError(ValueError):
    """The text is not an expression; the message says where."""


def compile_expression(source: str) -> Expression:
    """Compile `source` into a function from variables to a value. Raises ExpressionError."""
    tokens = _tokens(source)
    if len(tokens) > _MOST_TOKENS:
        raise ExpressionError(f"too long an expression: `{source[:40]}...`")
    parser = _ExpressionParser(tokens, source)
    try:
        tree = parser.ternary()
    except RecursionError:
        raise ExpressionError(f"nested too deeply: `{source[:40]}...`") from None
    parser.expect("end")
    return tree


def _tokens(source: str) -> list[tuple[str, Any]]:
    tokens: list[tuple[str, Any]] = []
    at = 0
    end = len(source.rstrip())
    while at < end:
        match = _TOKEN.match(source, at)
        if not match or not match.lastgroup:
            raise ExpressionError(f"cannot read `{source[at:end].strip()}` in `{source}`")
        kind, value = match.lastgroup, match.group(match.lastgroup)
        if kind == "operator" or (kind == "name" and value in _WORDS):
            if kind == "name" and source.startswith("(", match.end()):
                raise ExpressionError(f"a blank is missing after `{value}` in `{source}`")
            tokens.append((value, value))
        elif kind == "number":
            tokens.append(("value", float(value) if "." in value else integer(value)))
        elif kind == "text":
            tokens.append(("value", re.sub(r"\\(.)", r"\1", value)))
        else:
            tokens.append(("name", re.sub(r"\\(.)", r"\1", value) if kind == "quoted" else value))
        at = match.end()
    tokens.append(("end", ""))
    return tokens


def _or_nan(function: Callable[..., float]) -> Callable[..., float]:
    def call(*arguments: Any) -> float:
        try:
            return function(*(to_number(a) for a in arguments))
        except (ValueError, OverflowError):
            return math.nan

    return call


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": _or_nan(abs),
    "ceil": _or_nan(math.ceil),
    "floor": _or_nan(math.floor),
    "log": _or_nan(math.log),
    "max": _or_nan(lambda *a: max(a, default=-math.inf)),
    "min": _or_nan(lambda *a: min(a, default=math.inf)),
    "random": random.random,
    "round": _or_nan(lambda value: math.floor(value + 0.5)),
    "sqrt": _or_nan(math.sqrt),
}


def _power(a: Any, b: Any) -> float:
    try:
        power = float(to_number(a)) ** float(to_number(b))
    except (ZeroDivisionError, OverflowError):
        return math.inf
    return math.nan if isinstance(power, complex) else power


def _as_number(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], int]:
    return lambda a, b: int(compare(a, b))


def _subset(a: Any, b: Any) -> int:
    wanted = a if isinstance(a, list) else [a]
    allowed = b if isinstance(b, list) else [b]
    return int(all(any(strictly_equal(x, y) for y in allowed) for x in wanted))


_BINARY: tuple[dict[str, Callable[[Any, Any], Any]], ...] = (
    {
        "==": lambda a, b: int(loosely_equal(a, b)),
        "!=": lambda a, b: int(not loosely_equal(a, b)),
        "~=": lambda a, b: int(bool(compile_regex(text(b)).search(text(a)))),
    },
    {sign: _as_number(compare) for sign, compare in ORDER.items()},
    {"+": add, "-": subtract},
    {"*": multiply, "/": divide, "%": remainder},
    {"^": _power},
)
"""Binary operators by precedence, lowest level first."""


class _ExpressionParser:
    """A recursive-descent parser with one method per level of precedence."""

    def __init__(self, tokens: list[tuple[str, Any]], source: str) -> None:
        self._tokens = tokens
        self._at = 0
        self._source = source

    def _kind(self, ahead: int = 0) -> str:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)][0]

    def _take(self) -> Any:
        self._at += 1
        return self._tokens[self._at - 1][1]

    def expect(self, kind: str) -> None:
        """Consume the next token, which must be of this kind. Raises ExpressionError otherwise."""
        if self._kind() != kind:
            found = self._tokens[self._at][1] or "the end"
            raise ExpressionError(f"unexpected {found!r} in `{self._source}`")
        self._at += 1

    def ternary(self) -> Expression:
        """Parse `c ? a : b`, or an expression of higher precedence."""
        condition = self._or()
        while self._kind() == "?":
            condition = self._choice(condition)
        return condition

    def _choice(self, condition: Expression) -> Expression:
        self.expect("?")
        then = self.ternary()
        self.expect(":")
        otherwise = self._or()
        return lambda v: then(v) if truthy(condition(v)) else otherwise(v)

    def _or(self) -> Expression:
        left = self._and()
        while self._kind() == "or":
            self._take()
            left = _either(left, self._and())
        return left

    def _and(self) -> Expression:
        left = self._in()
        while self._kind() == "and":
            self._take()
            left = _both(left, self._in())
        return left

    def _in(self) -> Expression:
        left = self._binary(0)
        while self._kind() == "in" or (self._kind() == "not" and self._kind(1) == "in"):
            negated = self._take() == "not"
            if negated:
                self._take()
            left = _member(left, self._binary(0), negated=negated)
        return left

    def _binary(self, level: int) -> Expression:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while self._kind() in _BINARY[level]:
            operate = _BINARY[level][self._take()]
            left = _operation(operate, left, self._binary(level + 1))
        return left

    def _unary(self) -> Expression:
        if self._kind() == "-":
            self._take()
            operand = self._unary()
            return lambda v: -to_number(operand(v))
        if self._kind() == "not":
            self._take()
            operand = self._unary()
            return lambda v: int(not truthy(operand(v)))
        return self._atom()

    def _atom(self) -> Expression:
        kind = self._kind()
        if kind == "value":
            value = self._take()
            return lambda _: value
        if kind == "name":
            return self._named(self._take())
        self.expect("(")
        items = [self.ternary()]
        while self._kind() == ",":
            self._take()
            items.append(self.ternary())
        self.expect(")")
        return items[0] if len(items) == 1 else lambda v: [item(v) for item in items]

    def _named(self, name: str) -> Expression:
        if self._kind() == "of":
            self._take()
            owner = self._unary()
            return lambda v: _property(owner(v), name)
        if self._kind() != "(":
            return lambda v: v.get(name, UNDEFINED)
        self._take()
        arguments: list[Expression] = []
        while self._kind() != ")":
            if arguments:
                self.expect(",")
            arguments.append(self.ternary())
        self._take()
        if name not in _FUNCTIONS:
            raise ExpressionError(f"no function `{name}` in `{self._source}`")
        function = _FUNCTIONS[name]
        return lambda v: function(*(a(v) for a in arguments))


def _property(owner: Any, name: str) -> Any:
    return owner.get(name, UNDEFINED) if isinstance(owner, Mapping) else UNDEFINED


def _operation(operate: Callable[[Any, Any], Any], left: Expression, right: Expression) -> Expression:
    return lambda v: operate(left(v), right(v))


def _either(left: Expression, right: Expression) -> Expression:
    return lambda v: to_number(a if truthy(a := left(v)) else right(v))


def _both(left: Expression, right: Expression) -> Expression:
    return lambda v: to_number(right(v) if truthy(a := left(v)) else a)


def _member(left: Expression, right: Expression, *, negated: bool) -> Expression:
    if negated:
        return lambda v: int(not _subset(left(v), right(v)))
    return lambda v: _subset(left(v), right(v))
