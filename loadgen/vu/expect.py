"""The expect plugin: checks expectations against a final response, and shows the results on the console. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from loadgen.language.limits import LimitExceeded
from loadgen.language.regex import compile_regex
from loadgen.language.template import Function, Template, compile_template
from loadgen.language.values import UNDEFINED, get_path, json_text, text, to_number, truthy
from loadgen.script.model import Expectation, ExpectPlugin
from loadgen.vu.answer import Answer

_JSON_TYPES = ("application/json", "application/problem+json", "application/ld+json")
_CACHE_HEADERS = ("cf-cache-status", "x-cache", "x-vercel-cache")
_SHOWN_BODY = 512
_QUERIES = ("jmespath", "jpath")
_ORDERS = {
    "header": ("ok", "type", "expected", "got"),
    "jmespath": ("expected", "type", "ok", "got"),
    "jpath": ("expected", "type", "ok", "got"),
    "cdnHit": ("ok", "type", "got", "expected"),
}
"""The order of keys in the json output, for expectations whose keys Artillery writes in an order of their own."""


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """The result of one expectation."""

    ok: bool
    expected: Any
    kind: str
    """The name of the expectation in the counters."""
    got: Any
    found: Any = False
    """The result of a query; the expectation holds if it is truthy."""

    def to_json(self) -> dict[str, Any]:
        """The result as the json output shows it."""
        shown = {"ok": self.ok, "expected": self.expected, "type": self.kind, "got": self.got}
        if self.kind in _QUERIES:
            shown["ok"] = self.found
        order = _ORDERS.get(self.kind.partition(" ")[0], tuple(shown))
        return {key: shown[key] for key in order}


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The request that expectations belong to, as far as the console shows it, and its answer."""

    method: str
    url: str
    path: str
    """The path of the URL, with its query."""
    name: str | None
    json: Any
    answer: Answer
    variables: Mapping[str, Any]


class _AnswerUnderTest:
    """An answer whose body is parsed for expectations: as JSON if the content type says so (None where that fails), else text."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.is_json = any(kind in answer.headers.get("content-type", "") for kind in _JSON_TYPES)
        self._answer = answer

    @cached_property
    def body(self) -> Any:
        """The body, parsed. Raises LimitExceeded."""
        if not self.is_json:
            return self._answer.text
        try:
            return self._answer.json
        except LimitExceeded:
            raise
        except ValueError:
            return None

    @property
    def is_object(self) -> bool:
        return isinstance(self.body, dict | list)


def _any_status(response: _AnswerUnderTest, expected: Any) -> bool:
    wanted = expected if isinstance(expected, list) else [expected]
    return any(to_number(item) == response.status for item in wanted)


def _status_code(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    return ExpectationResult(_any_status(response, expected), expected, "statusCode", response.status)


def _not_status_code(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    said = f"Status code different than {text(expected)}"
    return ExpectationResult(not _any_status(response, expected), said, "notStatusCode", response.status)


def _content_type(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    sent = response.headers.get("content-type")
    if expected == "json":
        if response.is_object and response.is_json:
            return ExpectationResult(True, expected, "contentType", "json")
        got = f"content-type is {sent or 'undefined'}"
        return ExpectationResult(
            False, expected, "contentType", "could not parse response body as JSON" if response.body is None else got
        )
    ok = sent is not None and sent.lower() == text(expected).lower()
    return ExpectationResult(ok, expected, "contentType", sent or "content-type header not set")


def _property(kind: str, *, wanted: bool) -> Callable[[_AnswerUnderTest, Any], ExpectationResult]:
    def check(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
        if not response.is_object:
            return ExpectationResult(False, expected, kind, "response body is not an object")
        ok = (get_path(response.body, text(expected)) is not UNDEFINED) is wanted
        failed = f"response body has {'no ' if wanted else ''}{text(expected)} property"
        return ExpectationResult(ok, expected, kind, expected if ok else failed)

    return check


def _equals(_: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    values = [text(item) for item in (expected if isinstance(expected, list) else [])]
    return ExpectationResult(len(set(values)) == 1, "all values to be equal", "equals", ", ".join(values))


def _has_header(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    ok = bool(response.headers.get(text(expected)))
    return ExpectationResult(ok, expected, "hasHeader", expected if ok else f"response has no {text(expected)} header")


def _header_equals(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    name, wanted = (
        ([text(item) for item in expected] + ["", ""])[:2] if isinstance(expected, list) else (text(expected), "")
    )
    kind = f"header {name} values equals"
    got = response.headers.get(name)
    if not got:
        return ExpectationResult(False, f"response to have {name} header", kind, f"response has no {name} header")
    return ExpectationResult(text(got) == wanted, wanted, kind, text(got))


def _matches_regexp(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    try:
        ok = bool(compile_regex(text(expected)).search(text(response.body)))
    except re.error as error:
        return ExpectationResult(False, True, "matchesRegexp", str(error))
    return ExpectationResult(ok, True, "matchesRegexp", ok)


def _cdn_hit(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
    wanted = ("hit", "stale") if expected else ("miss",)
    said = f"a cache header indicating a cache {'hit' if expected else 'miss'}"
    for name in _CACHE_HEADERS:
        value = text(response.headers.get(name, ""))
        if value.lower().startswith(wanted):
            return ExpectationResult(True, said, "cdnHit", f"{name} is {value}")
    return ExpectationResult(False, said, "cdnHit", "cache status header not found")


def _jmespath(kind: str) -> Callable[[_AnswerUnderTest, Any], ExpectationResult]:
    def check(response: _AnswerUnderTest, expected: Any) -> ExpectationResult:
        from loadgen.language.queries import QueryError, search  # noqa: PLC0415 - few scripts need it

        if not response.is_object:
            return ExpectationResult(False, expected, kind, "response body is not an object")
        try:
            found = search(text(expected), response.body)
        except QueryError:
            found = False
        return ExpectationResult(truthy(found), expected, kind, expected, found)

    return check


_CHECKS: dict[str, Callable[[_AnswerUnderTest, Any], ExpectationResult]] = {
    "statusCode": _status_code,
    "notStatusCode": _not_status_code,
    "contentType": _content_type,
    "hasProperty": _property("hasProperty", wanted=True),
    "notHasProperty": _property("notHasProperty", wanted=False),
    "equals": _equals,
    "hasHeader": _has_header,
    "headerEquals": _header_equals,
    "matchesRegexp": _matches_regexp,
    "cdnHit": _cdn_hit,
    "jmespath": _jmespath("jmespath"),
    "jpath": _jmespath("jpath"),
}
KINDS = tuple(_CHECKS)
"""The names of all expectations."""


def compile_expectations(
    expectations: Sequence[Expectation], plugin: ExpectPlugin, calls: Mapping[str, Function]
) -> Callable[[Answer, Mapping[str, Any]], tuple[list[ExpectationResult], list[str]]] | None:
    """Compile expectations into the function that checks a response; None if there is nothing to do.

    The function returns the results, and messages about expectations that do not exist. With the json output every request
    has its line, even without expectations.
    """
    wanted = list(expectations)
    if not wanted and plugin.default_200:
        wanted = [Expectation("statusCode", 200)]
    if not wanted and plugin.output != "json":
        return None
    known = [(_CHECKS[e.kind], _compiled(e, calls)) for e in wanted if e.kind in _CHECKS]
    unknown = [f"Expect Plugin: Expectation '{e.kind}' is not supported" for e in wanted if e.kind not in _CHECKS]

    def check(answer: Answer, variables: Mapping[str, Any]) -> tuple[list[ExpectationResult], list[str]]:
        response = _AnswerUnderTest(answer)
        return [judge(response, expected.render(variables)) for judge, expected in known], unknown

    return check


def _compiled(expectation: Expectation, calls: Mapping[str, Function]) -> Template:
    if expectation.kind == "equals" and isinstance(expectation.expected, list):
        texts = [compile_template(text(item), calls) for item in expectation.expected]
        return Template(expectation.expected, lambda variables: [item.render(variables) for item in texts])
    return compile_template(expectation.expected, calls)


def console_text(results: Sequence[ExpectationResult], exchanged: Exchanged, output: str) -> str:
    """The text that stdout shows for these results, without a newline at its end; it may be empty."""
    failed = any(not result.ok for result in results)
    if output == "silent" or (output == "prettyError" and not failed):
        return ""
    if output == "json":
        named = {} if exchanged.name is None else {"name": exchanged.name}
        return json_text({**named, "url": exchanged.path, "results": [result.to_json() for result in results]})
    if not results:
        return ""
    lines = [f"* {exchanged.method} {exchanged.path} {f'- {exchanged.name}' if exchanged.name else ''}", ""]
    for result in results:
        lines.append(f"  {'ok' if result.ok else 'not ok'} {result.kind} {text(result.got)} ")
        if not result.ok:
            lines += [f"  expected: {text(result.expected)}", f"       got: {text(result.got)}"]
    if failed:
        lines += _context(exchanged)
    return "\n".join(lines)


def _shown_body(answer: Answer) -> str:
    try:
        return answer.text[:_SHOWN_BODY]
    except LimitExceeded as exceeded:
        return exceeded.name


def _context(exchanged: Exchanged) -> list[str]:
    sent = json.dumps(exchanged.json or "", indent=2, ensure_ascii=False, default=text)
    lines = ["  Request params:", f"    {exchanged.url}", *(f"    {line}" for line in sent.split("\n")), "  Headers:"]
    lines += [f"  {name}: {text(value)}" for name, value in exchanged.answer.headers.items()]
    lines += ["  Body:", _shown_body(exchanged.answer), "  User variables:"]
    hidden = ("$processEnvironment", "$env")
    return lines + [f"    {name}: {text(value)}" for name, value in exchanged.variables.items() if name not in hidden]
