"""A small part of JavaScript's expressions, for the filters of JSONPath. Pure: text in, a function of a scope out.

It has literals (numbers, texts, `true`, `false`, `null`, `undefined`, regular expressions, lists), names, properties
(`a.b`, `a[0]`), calls of the methods below, `typeof` and `void`, the unary operators `! - + ~`, the binary operators of
arithmetic, comparison and logic, and `c ? a : b`. Nothing else can be reached from such an expression.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import regex

from loadgen.language.operators import ORDER, add, divide, multiply, remainder, subtract
from loadgen.language.regex import Regex, compile_regex
from loadgen.language.values import UNDEFINED, child, integer, loosely_equal, strictly_equal, text, to_number, truthy

Scope = Mapping[str, Any]
Expression = Callable[[Scope], Any]

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_$@][\w$]*|@)
    |(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
    |(?P<operator>===|!==|>>>|==|!=|<=|>=|&&|\|\||<<|>>|[-+*/%<>!~&|^?:().,\[\]]))""",
    re.VERBOSE | re.DOTALL,
)
_REGEX = re.compile(r"\s*/((?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n])+)/([a-z]*)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_LITERALS = {"true": True, "false": False, "null": None, "undefined": UNDEFINED}
_BEHIND_VALUE = tuple(". )[\t\n\r\f\v")
_LONGEST = 2000
"""Longest expression, in characters: nested calls could exhaust the stack."""


class JavaScriptError(ValueError):
    """The text is not an expression, or it cannot be evaluated; the message says why."""


def compile_javascript(source: str) -> Expression:
    """Compile an expression. Raises JavaScriptError here, and when it is evaluated."""
    if len(source) > _LONGEST:
        raise JavaScriptError("the expression is too long")
    parser = _Parser(source)
    try:
        tree = parser.ternary()
    except RecursionError:
        raise JavaScriptError("the expression is nested too deeply") from None
    parser.expect_end()
    return tree


def _int32(value: Any) -> int:
    number = to_number(value)
    if not math.isfinite(number):
        return 0
    whole = int(number) & 0xFFFFFFFF
    return whole - (1 << 32) if whole >= 1 << 31 else whole


_BINARY: tuple[dict[str, Callable[[Any, Any], Any]], ...] = (
    {"|": lambda a, b: _int32(a) | _int32(b)},
    {"^": lambda a, b: _int32(a) ^ _int32(b)},
    {"&": lambda a, b: _int32(a) & _int32(b)},
    {
        "==": loosely_equal,
        "!=": lambda a, b: not loosely_equal(a, b),
        "===": strictly_equal,
        "!==": lambda a, b: not strictly_equal(a, b),
    },
    ORDER,
    {
        "<<": lambda a, b: _int32(_int32(a) << (_int32(b) & 31)),
        ">>": lambda a, b: _int32(a) >> (_int32(b) & 31),
        ">>>": lambda a, b: (_int32(a) & 0xFFFFFFFF) >> (_int32(b) & 31),
    },
    {"+": add, "-": subtract},
    {"*": multiply, "/": divide, "%": remainder},
)
"""Binary operators by precedence, lowest level first; `||` and `&&`, which come before them, do not evaluate both sides."""


class _Parser:
    """A recursive-descent parser with one method per level of precedence."""

    def __init__(self, source: str) -> None:
        self._source = source.rstrip()
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        if self._at >= len(self._source):
            return "end", "the end"
        match = _TOKEN.match(self._source, self._at)
        if match is None or match.lastgroup is None:
            raise JavaScriptError(f"cannot read `{self._source[self._at :].strip()[:40]}`")
        return match.lastgroup, match[match.lastgroup]

    def _take(self) -> tuple[str, str]:
        found = self._peek()
        match = _TOKEN.match(self._source, self._at)
        self._at = match.end() if match else len(self._source)
        return found

    def _takes(self, *operators: str) -> str | None:
        kind, value = self._peek()
        if kind == "operator" and value in operators:
            self._take()
            return value
        return None

    def _expect(self, operator: str) -> None:
        if not self._takes(operator):
            raise JavaScriptError(f"`{operator}` is missing before `{self._peek()[1]}`")

    def expect_end(self) -> None:
        """Raise JavaScriptError unless everything has been read."""
        kind, value = self._peek()
        if kind != "end":
            raise JavaScriptError(f"unexpected `{value}`")

    def ternary(self) -> Expression:
        """Parse `c ? a : b`, or an expression of higher precedence."""
        condition = self._or()
        if not self._takes("?"):
            return condition
        then = self.ternary()
        self._expect(":")
        otherwise = self.ternary()
        return lambda s: then(s) if truthy(condition(s)) else otherwise(s)

    def _or(self) -> Expression:
        left = self._and()
        while self._takes("||"):
            left = _either(left, self._and())
        return left

    def _and(self) -> Expression:
        left = self._binary(0)
        while self._takes("&&"):
            left = _both(left, self._binary(0))
        return left

    def _binary(self, level: int) -> Expression:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while operator := self._takes(*_BINARY[level]):
            left = _operation(_BINARY[level][operator], left, self._binary(level + 1))
        return left

    def _unary(self) -> Expression:
        operator = self._takes("!", "-", "+", "~")
        if operator is None and self._peek() in {("name", "typeof"), ("name", "void")}:
            operator = self._take()[1]
        if operator is None:
            return self._member()
        operand = self._unary()
        apply = _UNARY[operator]
        return lambda s: apply(operand(s))

    def _member(self) -> Expression:
        """Parse an operand with the properties and calls behind it."""
        target = self._operand()
        while operator := self._takes(".", "["):
            if operator == ".":
                kind, name = self._take()
                if kind != "name":
                    raise JavaScriptError(f"`{name}` is not the name of a property")
                key: Expression = _constant(name)
            else:
                key = self.ternary()
                self._expect("]")
            target = _call(target, key, self._arguments()) if self._takes("(") else _property(target, key)
        return target

    def _arguments(self) -> list[Expression]:
        arguments: list[Expression] = []
        while not self._takes(")"):
            if arguments:
                self._expect(",")
            arguments.append(self.ternary())
        return arguments

    def _operand(self) -> Expression:
        if regex := _REGEX.match(self._source, self._at):
            self._at = regex.end()
            try:
                return _constant(compile_regex(regex[1], regex[2].replace("g", "")))
            except re.error as error:
                raise JavaScriptError(f"`{regex[0].strip()}` is not a regular expression: {error}") from None
        kind, value = self._take()
        if kind == "number":
            return _constant(integer(value) if value.isdecimal() else float(value))
        if kind == "text":
            return _constant(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), value[1:-1], flags=re.DOTALL))
        if value == "@" and self._source[self._at : self._at + 1] not in _BEHIND_VALUE:
            raise JavaScriptError(
                "`@` stands for the value only before a dot, a blank, `)` or `[`, as in jsonpath-plus"
            )
        if kind == "name":
            return _constant(_LITERALS[value]) if value in _LITERALS else _variable(value)
        if value == "(":
            inner = self.ternary()
            self._expect(")")
            return inner
        if value == "[":
            items: list[Expression] = []
            while not self._takes("]"):
                if items:
                    self._expect(",")
                items.append(self.ternary())
            return lambda s: [item(s) for item in items]
        raise JavaScriptError(f"unexpected `{value}`")


def _constant(value: Any) -> Expression:
    return lambda _: value


def _variable(name: str) -> Expression:
    def read(scope: Scope) -> Any:
        try:
            return scope[name]
        except KeyError:
            raise JavaScriptError(f"{name} is not defined") from None

    return read


def _either(left: Expression, right: Expression) -> Expression:
    return lambda s: a if truthy(a := left(s)) else right(s)


def _both(left: Expression, right: Expression) -> Expression:
    return lambda s: right(s) if truthy(a := left(s)) else a


def _operation(operate: Callable[[Any, Any], Any], left: Expression, right: Expression) -> Expression:
    return lambda s: operate(left(s), right(s))


def _property(target: Expression, key: Expression) -> Expression:
    def read(scope: Scope) -> Any:
        name, owner = text(key(scope)), target(scope)
        if owner is None or owner is UNDEFINED:
            raise JavaScriptError(f"cannot read {name} of {text(owner)}")
        found = child(owner, name)
        return _method(owner, name) or UNDEFINED if found is UNDEFINED else found

    return read


def _call(target: Expression, key: Expression, arguments: list[Expression]) -> Expression:
    read = _property(target, key)

    def call(scope: Scope) -> Any:
        given = [argument(scope) for argument in arguments]
        function = read(scope)
        if not callable(function):
            raise JavaScriptError(f"{text(key(scope))} is not a function")
        return function(*given)

    return call


def _kind(value: Any) -> str:
    """Return what JavaScript's `typeof` gives."""
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "function" if callable(value) else "object"


_UNARY: dict[str, Callable[[Any], Any]] = {
    "!": lambda a: not truthy(a),
    "-": lambda a: -to_number(a),
    "+": to_number,
    "~": lambda a: ~_int32(a),
    "typeof": _kind,
    "void": lambda _: UNDEFINED,
}


def _whole(value: Any, default: int) -> int:
    """Return an argument as a whole number, as JavaScript's methods take it."""
    if value is UNDEFINED:
        return default
    number = to_number(value)
    return 0 if math.isnan(number) else int(max(-(2**53), min(2**53, number)))


def _matches(self: str, pattern: Any) -> list[Any] | None:
    found = _searched(self, pattern)
    return None if found is None else [found[0], *(UNDEFINED if g is None else g for g in found.groups())]


def _searched(self: str, pattern: Any) -> regex.Match[str] | None:
    try:
        return (pattern if isinstance(pattern, Regex) else compile_regex(text(pattern))).search(self)
    except re.error as error:
        raise JavaScriptError(str(error)) from None


def _slice(self: Any, start: Any = UNDEFINED, end: Any = UNDEFINED, *_: Any) -> Any:
    return self[_whole(start, 0) : _whole(end, len(self))]


def _substring(self: str, start: Any = UNDEFINED, end: Any = UNDEFINED, *_: Any) -> str:
    a, b = (min(max(_whole(each, default), 0), len(self)) for each, default in ((start, 0), (end, len(self))))
    return self[min(a, b) : max(a, b)]


def _index_in(self: list[Any], wanted: Any = UNDEFINED, *_: Any) -> int:
    return next((i for i, item in enumerate(self) if strictly_equal(item, wanted)), -1)


_OF_TEXTS: dict[str, Callable[..., Any]] = {
    "charAt": lambda self, at=0, *_: self[_whole(at, 0) : _whole(at, 0) + 1] if _whole(at, 0) >= 0 else "",
    "concat": lambda self, *more: self + "".join(map(text, more)),
    "endsWith": lambda self, end=UNDEFINED, *_: self.endswith(text(end)),
    "includes": lambda self, part=UNDEFINED, *_: text(part) in self,
    "indexOf": lambda self, part=UNDEFINED, *_: self.find(text(part)),
    "lastIndexOf": lambda self, part=UNDEFINED, *_: self.rfind(text(part)),
    "match": lambda self, pattern="", *_: _matches(self, pattern),
    "search": lambda self, pattern="", *_: -1 if (m := _searched(self, pattern)) is None else m.start(),
    "slice": _slice,
    "split": lambda self, by=UNDEFINED, *_: (
        [self] if by is UNDEFINED else self.split(text(by)) if text(by) else [*self]
    ),
    "startsWith": lambda self, start=UNDEFINED, *_: self.startswith(text(start)),
    "substring": _substring,
    "toLowerCase": lambda self, *_: self.lower(),
    "toString": lambda self, *_: self,
    "toUpperCase": lambda self, *_: self.upper(),
    "trim": lambda self, *_: self.strip(),
}
_OF_LISTS: dict[str, Callable[..., Any]] = {
    "concat": lambda self, *more: [*self, *(x for each in more for x in (each if isinstance(each, list) else [each]))],
    "includes": lambda self, wanted=UNDEFINED, *_: _index_in(self, wanted) >= 0,
    "indexOf": _index_in,
    "join": lambda self, by=",", *_: text(by).join("" if x is None or x is UNDEFINED else text(x) for x in self),
    "slice": _slice,
    "toString": lambda self, *_: text(self),
}
_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "toFixed": lambda self, digits=0, *_: f"{self:.{min(max(_whole(digits, 0), 0), 100)}f}",
    "toString": lambda self, *_: text(self),
}
_OF_PATTERNS: dict[str, Callable[..., Any]] = {
    "test": lambda self, said=UNDEFINED, *_: _searched(text(said), self) is not None,
    "exec": lambda self, said=UNDEFINED, *_: _matches(text(said), self),
}


def _method(owner: Any, name: str) -> Callable[..., Any] | None:
    """Return a method of a value, bound to it; None where this language has none of that name."""
    for kinds, methods in (
        (str, _OF_TEXTS),
        (list, _OF_LISTS),
        ((int, float), _OF_NUMBERS),
        (Regex, _OF_PATTERNS),
    ):
        if isinstance(owner, kinds) and name in methods:
            method = methods[name]
            return lambda *arguments: method(owner, *arguments)
    if isinstance(owner, dict) and name == "hasOwnProperty":
        return lambda key=UNDEFINED, *_: text(key) in owner
    return None
