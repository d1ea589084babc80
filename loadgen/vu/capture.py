"""Takes values out of responses (`capture`) and compares them with expected ones (`match`); compiled once for all users."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from loadgen.language.jsonpath import JsonPathError, find_all
from loadgen.language.limits import LimitExceeded
from loadgen.language.regex import compile_regex, group_name
from loadgen.language.template import Function, Template, compile_template
from loadgen.language.values import UNDEFINED, set_path, strictly_equal, text, to_number, truthy
from loadgen.script.model import Capture
from loadgen.script.processor import Response
from loadgen.vu.answer import Answer

Taker = Callable[[Answer, Any, Random], Any]
"""Takes a value out of a response: (response, expression, rng) -> value, UNDEFINED or "" if there is none.

Raises ValueError for a body that cannot be read.
"""


OwnTaker = Callable[[Response, Any], Any]
"""A function of the processor that takes a value out of a response: (response, user) -> value."""


class _Rule:
    __slots__ = ("compares", "expected", "expression", "into", "is_match", "may_fail", "own", "take")

    def __init__(
        self, spec: Capture, calls: Mapping[str, Function], own: Mapping[str, OwnTaker], *, strict_default: bool
    ) -> None:
        self.take = _TAKERS.get(spec.source, _nothing)(spec)
        self.own = own[spec.expression] if spec.source == "function" else None
        self.expression: Template = compile_template(spec.expression, calls)
        self.compares = spec.expected is not UNDEFINED
        self.expected: Template = compile_template(spec.expected, calls)
        self.into = spec.into
        self.is_match = spec.is_match
        if spec.is_match:
            self.may_fail = spec.strict is False
        else:
            self.may_fail = spec.strict is False or (not strict_default and spec.strict is None)


def compile_captures(
    specs: Sequence[Capture],
    calls: Mapping[str, Function],
    rng: Random,
    *,
    strict_default: bool,
    functions: Mapping[str, OwnTaker] | None = None,
) -> Callable[..., bool]:
    """Compile captures and matches into one function, (answer, variables, user) -> whether they all succeeded.

    It stores the captured values in the variables. If a strict capture has no value (undefined, "" or a body that cannot be
    read), or a strict match does not hold, it returns False and stores nothing. A strict one that would take too much time
    or memory raises LimitExceeded. `functions` are those of the processor, by
    name; they are given the user.
    """
    rules = [_Rule(spec, calls, functions or {}, strict_default=strict_default) for spec in specs]

    def apply(answer: Answer, variables: dict[str, Any], user: Any = None) -> bool:
        taken: dict[str, Any] = {}
        for rule in rules:
            try:
                if rule.own is None:
                    value = rule.take(answer, rule.expression.render(variables), rng)
                else:
                    response = Response(answer.status, answer.headers, answer.text, answer.plain_body(), answer.timings)
                    value = rule.own(response, user)
            except LimitExceeded:
                if not rule.may_fail:
                    raise
                value = UNDEFINED
            except ValueError:
                value = UNDEFINED
                if rule.is_match and not rule.may_fail:
                    return False
            if rule.is_match:
                if rule.compares and not rule.may_fail and not strictly_equal(value, rule.expected.render(variables)):
                    return False
            else:
                if not rule.may_fail and (value is UNDEFINED or value == ""):
                    return False
                taken[rule.into] = value
        try:
            for path, value in taken.items():
                set_path(variables, path, value)
        except ValueError:
            # The path is an index so large that no list should grow to it.
            return False
        return True

    return apply


def _nothing(_: Capture) -> Taker:
    return lambda _answer, _expression, _rng: ""


def _from_json(spec: Capture) -> Taker:
    def take(answer: Answer, expression: Any, rng: Random) -> Any:
        document = answer.json
        if not isinstance(document, dict | list):
            return ""
        try:
            found, many = find_all(text(expression), document)
        except JsonPathError:
            return ""
        if spec.multiple:
            return rng.choice(found) if found else UNDEFINED
        if not found:
            return ""
        value = found if many else found[0]
        return value if truthy(value) else ""

    return take


def _from_header(_: Capture) -> Taker:
    return lambda answer, expression, _rng: answer.headers.get(text(expression), "")


def _from_regexp(spec: Capture) -> Taker:
    group = spec.group

    def take(answer: Answer, expression: Any, _: Random) -> Any:
        try:
            pattern = compile_regex(text(expression), spec.flags)
            match = pattern.search(answer.text)
        except re.error as error:
            raise ValueError(str(error)) from None
        if not match:
            return ""
        if group and pattern.group_numbers:
            return match.groupdict().get(group_name(text(group))) or UNDEFINED
        number = to_number(group) if group else 0
        # NaN, a name that the expression does not have, is in no range.
        if number in range(1, pattern.groups + 1) and match[int(number)]:
            return match[int(number)]
        return match[0]

    return take


def _from_selector(spec: Capture) -> Taker:
    def take(answer: Answer, expression: Any, rng: Random) -> Any:
        # These libraries are large, and few scripts need them.
        from loadgen.language.selectors import compile_selector, parse_page  # noqa: PLC0415

        try:
            found = compile_selector(text(expression))(parse_page(answer.text))
        except LimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - lxml and cssselect have many, all saying: not readable
            raise ValueError(str(error)) from None
        if not found:
            return UNDEFINED
        if spec.index == "random":
            element = rng.choice(found)
        elif spec.index == "last":
            element = found[-1]
        else:
            at = to_number(spec.index)
            if not 0 <= at < len(found):
                return UNDEFINED
            element = found[int(at)]
        if spec.attribute is None:
            return dict(element.attrib)
        value = element.get(text(spec.attribute))
        return UNDEFINED if value is None else value

    return take


_TAKERS: dict[str, Callable[[Capture], Taker]] = {
    "json": _from_json,
    "header": _from_header,
    "regexp": _from_regexp,
    "selector": _from_selector,
}
