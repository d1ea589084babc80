"""Checks the steps of a scenario and turns them into values. Pure, except that files to be uploaded are read.

The items of a flow are held to what Artillery checks before it starts: what is refused here, `artillery run` refuses too.
Artillery does not check items inside a `loop` or `parallel`; there, the same faults are warnings.
"""

from __future__ import annotations

import mimetypes
import posixpath
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import isinf, isnan
from typing import Any

from loadgen.http.message import BadRequestError, FormPart, address_of
from loadgen.language.expressions import ExpressionError, compile_expression
from loadgen.language.regex import compile_regex
from loadgen.language.values import UNDEFINED, to_number, truthy
from loadgen.script import keys, model
from loadgen.script.config import unsendable, warn_of_field, warn_of_jitter
from loadgen.script.document import ABSENT, ScriptNode, nearest
from loadgen.script.durations import think_seconds
from loadgen.script.keys import METHODS
from loadgen.script.processor import Processor, unfit

_ACTIONS = (*METHODS, "think", "log", "loop", "parallel", "function")
_CHECKED = ("get", "post", "put", "patch", "delete")
_HOOKS = ("beforeRequest", "afterResponse")
_SOURCES = ("json", "xpath", "regexp", "header", "selector", "function")
_FILES_KEPT = 100
_NO_URL = "an URL must be specified"
_BODIES = {model.JsonBody: "json", model.TextBody: "body", model.FormBody: "form", model.MultipartBody: "formData"}
_LOOP_RANGE = re.compile(r"\d-\d")

ReadFile = Callable[[str], bytes]


class FlowReader:
    """Turns the items of flows into steps. With `skip_unsupported`, items that cannot be run are left out with a warning."""

    def __init__(
        self, read_file: ReadFile, processor: Processor | None, *, skip_unsupported: bool, expect_listed: bool
    ) -> None:
        self._read_file = read_file
        self._processor = processor
        self._around: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._skip = skip_unsupported
        self._expect_listed = expect_listed
        self._told_of_expect = False

    def flow(self, holder: ScriptNode) -> tuple[model.Step, ...]:
        """Return the steps of a scenario: its `flow`, between its beforeScenario and afterScenario functions."""
        self._around = self.called(holder, "beforeRequest"), self.called(holder, "afterResponse")
        first, last = (self.called(holder, name) for name in ("beforeScenario", "afterScenario"))
        steps = self._flow(holder["flow"])
        return (*map(model.Call, first), *steps, *map(model.Call, last))

    def _flow(self, items: ScriptNode) -> list[model.Step]:
        steps: list[model.Step] = []
        for item in items.parts():
            if not isinstance(item.value, Mapping):
                item.refuse("must be an object with one action")
            elif "loop" not in item and len(item.value) != 1:
                self._refuse_keys(item)
            else:
                steps += self._step(item, strict=True)
        return steps

    def unsupported(self, part: ScriptNode, what: str, instead: str) -> None:
        """Note a part of the script that this program cannot run."""
        if self._skip:
            part.notes.skipped = True
            part.warn(f"{what}: skipped")
        else:
            part.refuse(f"{what}: not supported. {instead}")

    def called(self, holder: ScriptNode, role: str) -> tuple[str, ...]:
        """Return the processor's functions that a key names, one or a list. A function that does not exist is refused."""
        part = holder[role]
        if part.value in (ABSENT, None, []):
            return ()
        wanted = [str(v) for v in (part.value if isinstance(part.value, list) else [part.value])]
        if self._processor is None:
            shown = ", ".join(f'"{name}"' for name in wanted)
            what = {"function": "function", "whileTrue": "condition"}.get(role, "hook")
            self.unsupported(
                part, f"the JavaScript {what} {shown}", "Write it in Python (config.processor), or remove it"
            )
            return ()
        return tuple(name for name in wanted if self._has(part, name, role))

    def _has(self, part: ScriptNode, name: str, role: str) -> bool:
        # A processor that could not be loaded has been reported already.
        if self._processor is None or not self._processor.path:
            return False
        # Which function this is, each virtual user finds out.
        if role in _HOOKS and "{{" in name:
            return True
        functions = self._processor.functions
        if name not in functions:
            part.refuse(f"no function `{name}` in {self._processor.path}", nearest(name, functions))
            return False
        why = unfit(functions[name], role)
        if why:
            part.refuse(f"`{name}` {why}")
        return why is None

    def _refuse_keys(self, item: ScriptNode) -> None:
        keys = ", ".join(f"`{k}`" for k in item.value) or "none"
        item.refuse(f"must have exactly one key, has {keys}")

    def _nested(self, items: ScriptNode) -> tuple[model.Step, ...]:
        steps: list[model.Step] = []
        for item in items.parts():
            if isinstance(item.value, Mapping) and item.value:
                steps += self._step(item, strict=False)
            else:
                item.warn("is not a step: the virtual user fails here")
                steps.append(model.Broken(_NO_URL))
        return tuple(steps)

    def _step(self, item: ScriptNode, *, strict: bool) -> list[model.Step]:
        """Turn one item into steps; empty if it is refused or skipped."""
        if truthy(item.get("loop")):
            return self._loop(item)
        if truthy(item.get("parallel")):
            item["parallel"].expect(list, "a list of steps", strict=False)
            _warn_of_second_actions(item, "parallel")
            return [model.Parallel(self._nested(item["parallel"]))]
        if "think" in item:
            return self._think(item, strict=strict)
        if "log" in item:
            item["log"].expect(str, "a text", strict=strict)
            _warn_of_second_actions(item, "log")
            return [model.Log(item.get("log"))]
        if item.get("function"):
            _warn_of_second_actions(item, "function")
            return [model.Call(name) for name in self.called(item, "function")]
        key = next(iter(item.value))
        if key.lower() not in METHODS:
            return self._unknown(item[key], key)
        _warn_of_second_actions(item, key)
        return self._request(item[key], key, strict=strict)

    def _unknown(self, part: ScriptNode, key: str) -> list[model.Step]:
        like = nearest(key, _ACTIONS)
        if "url" in part or "uri" in part:
            part.refuse(f"`{key}` is not an HTTP method that can be sent", like)
            return []
        part.warn(f"`{key}` is not an action: the virtual user fails here", like)
        return [model.Broken(_NO_URL)]

    def _think(self, item: ScriptNode, *, strict: bool) -> list[model.Step]:
        think = item["think"]
        if think.expect((int, float, str), "a number or a text", strict=strict):
            value = think.value
            if isinstance(value, float):
                think.warn("Artillery does not wait for a fraction of a second given without a unit; here it is waited")
            if think_seconds(value) is None and not (isinstance(value, str) and "{{" in value):
                think.warn("is not a think time: the virtual user fails here")
            elif (think_seconds(value) or 0) < 0:
                think.warn("is below 0: nothing is waited")
        warn_of_jitter(item["jitter"])
        _warn_of_second_actions(item, "think", "jitter")
        return [model.Think(think.value, item.get("jitter"))]

    def _loop(self, item: ScriptNode) -> list[model.Step]:
        steps_part, count, over = item["loop"], item["count"], item["over"]
        item.warn_unknown(keys.LOOP)
        if not steps_part.expect(list, "a list of steps"):
            return []
        if over.value is not ABSENT and "count" in item:
            count.warn("has no effect: `over` gives the number of rounds")
        if over.value is ABSENT and "loopElement" in item:
            item["loopElement"].warn("has no effect without `over`")
        asked = self.called(item, "whileTrue")
        if not (count.expect((int, float, str), "a number or a text") and over.expect((list, str), "a list or a text")):
            return []
        if "whileTrue" not in item and not truthy(over.value) and not self._counts(item, count):
            return []
        return [
            model.Loop(
                self._nested(steps_part),
                None if over.value is not ABSENT else count.value,
                tuple(over.value) if isinstance(over.value, list) else (over.value or None),
                asked[0] if asked else None,
                item.get("loopValue") or "$loopCount",
                item.get("loopElement") or "$loopElement",
            )
        ]

    def _counts(self, item: ScriptNode, count: ScriptNode) -> bool:
        """Whether a loop without `over` has a count (-1 means for ever)."""
        value = count.value
        if value is ABSENT:
            item["loop"].refuse("a loop without `count` or `over` never ends; write `count: -1` if that is meant")
            return False
        rounds = to_number(value)
        if rounds == 0 or isinf(rounds):
            said = "a loop with `count: 0`" if rounds == 0 else f"a loop with `count: {value}`"
            count.refuse(f"{said} never ends in Artillery; leave the loop out, or write -1 for no end")
            return False
        if isnan(rounds) and not (isinstance(value, str) and ("{{" in value or _LOOP_RANGE.search(value))):
            count.warn("is not a number of rounds: there will be none")
        return True

    def _request(self, part: ScriptNode, method: str, *, strict: bool) -> list[model.Step]:
        strict = strict and method in _CHECKED
        if not part.expect(dict, "an object with a `url`", strict=strict):
            return [] if strict else [model.Broken(_NO_URL)]
        url = part["url"]
        if strict and not (isinstance(url.value, str) and url.value):
            (url if url.value is not ABSENT else part).refuse("`url` must be a text")
            return []
        if not (part.get("url") or part.get("uri")):
            part.warn("no `url`: the virtual user fails here")
            return [model.Broken(_NO_URL)]
        self._check_request(part, strict=strict)
        bodies = self._bodies(part)
        before, after = (around + self.called(part, role) for around, role in zip(self._around, _HOOKS, strict=True))
        if not before:
            _warn_of_unsendable(part, method.upper(), bodies)
        return [
            model.RequestStep(
                method=method.upper(),
                url=part.get("url") or part.get("uri"),
                place=part.place,
                name=part.get("name") or None,
                headers=_object(part["headers"]),
                bodies=bodies,
                query=_object(part["qs"]) if truthy(part.get("qs")) else None,
                cookies=_object(part["cookie"]),
                auth=(part["auth"].get("user"), part["auth"].get("pass"))
                if isinstance(part.get("auth"), dict)
                else None,
                gzip=part.get("gzip") is not False,
                follow_redirect=truthy(part.get("followRedirect", True)),
                captures=self._captures(part),
                expectations=self._expectations(part["expect"]),
                if_true=self._condition(part["ifTrue"]),
                probability=_probability(part["probability"]),
                before=before,
                after=after,
            )
        ]

    def _condition(self, part: ScriptNode) -> str | None:
        if part.value is ABSENT:
            return None
        if not isinstance(part.value, str):
            part.warn("is no text, so it counts as true whatever it is; write the expression in quotes")
            return None
        if self._processor is not None and part.value in self._processor.functions:
            self._has(part, part.value, "ifTrue")
            return part.value
        try:
            compile_expression(part.value)
        except ExpressionError as error:
            part.warn(f"{error}: it counts as true")
            return None
        return part.value

    def _check_request(self, part: ScriptNode, *, strict: bool) -> None:
        part.warn_unknown(keys.REQUEST)
        if part.get("url") and "uri" in part:
            part["uri"].warn("has no effect: `url` replaces it")
        if "body" in part and (truthy(part.get("json")) or truthy(part.get("formData"))):
            part["body"].warn(f"is not sent: `{'formData' if truthy(part.get('formData')) else 'json'}` replaces it")
        for key in ("headers", "cookie", "qs"):
            part[key].expect(dict, "an object", strict=strict)
        for key in ("followRedirect", "gzip"):
            if part.get(key) not in ("true", "false"):
                part[key].expect(bool, "true or false", strict=strict)
        if part["auth"].expect(dict, "an object", strict=strict):
            for key in ("user", "pass"):
                part["auth"][key].expect(str, "a text", strict=strict)

    def _bodies(self, part: ScriptNode) -> tuple[model.Body, ...]:
        """Read the bodies of a request. `json` and `formData` replace `body`; any other combination contradicts itself."""
        bodies: list[model.Body] = []
        if part["json"].value is not ABSENT:
            bodies.append(model.JsonBody(part.get("json")))
        if truthy(part.get("formData")):
            bodies.append(self._multipart(part["formData"]))
        elif part.get("body") and not truthy(part.get("json")):
            bodies.append(model.TextBody(part.get("body")))
        if truthy(part.get("form")):
            part["form"].expect(dict, "an object", strict=False)
            bodies.append(model.FormBody(_object(part["form"])))
        if len(bodies) > 1:
            part.warn("json, form and formData or body exclude each other: the virtual user fails here")
        return tuple(bodies)

    def _multipart(self, part: ScriptNode) -> model.MultipartBody:
        part.expect(dict, "an object", strict=False)
        parts = []
        for name, field in part.items():
            value = field.value
            if not isinstance(value, dict):
                parts.append(FormPart(name, value))
            elif value.get("fromFile"):
                parts += self._file_part(name, field)
            else:
                parts.append(FormPart(name, value.get("value", value), value.get("contentType")))
        return model.MultipartBody(tuple(parts))

    def _file_part(self, name: str, field: ScriptNode) -> list[FormPart]:
        path = field.get("fromFile")
        if isinstance(path, str) and "{{" in path:
            return [FormPart(name, None, field.get("contentType"), path, read=lru_cache(_FILES_KEPT)(self._read_file))]
        guessed = media_type(str(path))
        content = self._content(field["fromFile"])
        if content is None:
            return []
        file_name = posixpath.basename(str(path).replace("\\", "/"))
        return [FormPart(name, None, field.get("contentType") or guessed, file_name, content)]

    def _content(self, part: ScriptNode) -> bytes | None:
        if not isinstance(part.value, str):
            part.refuse("must be the name of a file")
            return None
        try:
            return self._read_file(part.value)
        except OSError as error:
            part.refuse(f"cannot read {part.value}: {error.strerror or error}")
            return None

    def _captures(self, part: ScriptNode) -> tuple[model.Capture, ...]:
        captures = [self._capture(p, is_match=False) for p in _listed(part["capture"])]
        matches = [self._capture(p, is_match=True) for p in _listed(part["match"])]
        return tuple(c for c in captures + matches if c is not None)

    def _capture(self, part: ScriptNode, *, is_match: bool) -> model.Capture | None:
        if not isinstance(part.value, dict):
            part.refuse("must be an object")
            return None
        part.warn_unknown(keys.CAPTURE)
        if not is_match and not isinstance(part.get("as"), str):
            part.refuse("`as` must name a variable")
            return None
        captures = isinstance(part.get("as"), str)
        compared_with_nothing = part["value"].value is ABSENT
        if compared_with_nothing and not captures:
            part.warn("has no `value`: nothing is compared")
        source = next((s for s in _SOURCES if part.get(s)), "")
        if source == "header":
            _warn_of_capitals(part["header"], part.get("header"))
        if source == "function" and not self._called_by_capture(part["function"]):
            return None
        _warn_of_unreadable(part[source], source, str(part.get("flags") or ""))
        if source in {"", "xpath"}:
            part.warn(
                "xpath captures are not available: this always fails" if source else "captures nothing, and fails"
            )
        strict = part.get("strict")
        return model.Capture(
            source=source,
            expression=part.get(source) if source else "",
            strict=strict if isinstance(strict, bool) else None,
            multiple=part.get("multiple", True) is not False,
            group=part.get("group"),
            flags=str(part.get("flags") or ""),
            attribute=part.get("attr"),
            index=part.get("index", 0),
            into=part.get("as") or "",
            expected=part.get("value", UNDEFINED),
            is_match=not compared_with_nothing or not captures,
        )

    def _called_by_capture(self, part: ScriptNode) -> bool:
        if self._processor is None:
            self.unsupported(part, "a capture by a function", "It needs a Python file as config.processor")
            return False
        return self._has(part, str(part.value), "capture")

    def _expectations(self, part: ScriptNode) -> tuple[model.Expectation, ...]:
        if part.value is ABSENT:
            return ()
        if not self._expect_listed and not self._told_of_expect:
            self._told_of_expect = True
            part.warn("is ignored: the expect plugin is not listed under config.plugins")
        out = []
        for item in _listed(part) if isinstance(part.value, list) else [part]:
            kinds = [kind for kind, _ in item.items()]
            used = kinds[:1] if isinstance(part.value, list) else kinds
            out += [model.Expectation(kind, item.get(kind)) for kind in used]
            if self._expect_listed:
                _warn_of_expectations(item, used)
            if len(used) < len(kinds):
                item.warn(f"only the first key of a list's element is an expectation: `{kinds[0]}`")
        return tuple(out)


def _warn_of_unsendable(part: ScriptNode, method: str, bodies: tuple[model.Body, ...]) -> None:
    """Warn of what keeps a request from being sent whatever the variables are."""
    url = part["url" if part.get("url") else "uri"]
    if (error := _complaint_about_url(url.value)) is not None:
        url.warn(unsendable(error))
    for name, field in part["headers"].items():
        warn_of_field(name, field)
    body = bodies[0] if len(bodies) == 1 else None
    key = next((key for kind, key in _BODIES.items() if isinstance(body, kind)), "")
    content = part.get(key)
    if isinstance(body, model.MultipartBody) and any(isinstance(each.value, bool) for each in body.parts):
        part[key].warn(unsendable("ERR_INVALID_ARG_TYPE"))
        return
    # A placeholder that nothing fills in is no body.
    can_be_none = body is None or (isinstance(content, str) and "{{" in content)
    if not can_be_none and (method in ("GET", "HEAD") or (key == "body" and not isinstance(content, str))):
        part[key].warn(unsendable("ERR_GOT_REQUEST_ERROR"))


def _complaint_about_url(url: Any) -> str | None:
    """The name of the error of every request to this URL, a path or a text that may hold templates; None if there is none."""
    if not isinstance(url, str) or "{{" in url or url.startswith("/"):
        return None
    if not url.startswith("http"):
        return f"Invalid URL - {url}"
    try:
        address_of(url)
    except BadRequestError as error:
        return error.name
    return None


def _warn_of_expectations(part: ScriptNode, used: list[str]) -> None:
    """Warn of expectations that there are not, or that cannot hold."""
    if not used:
        part.warn("is no expectation: an object with a key such as `statusCode`")
    for key in used:
        expected = part[key]
        if key not in keys.EXPECTATION:
            expected.warn(f"there is no expectation `{key}`: nothing is checked", nearest(key, keys.EXPECTATION))
        elif key in ("hasHeader", "headerEquals"):
            _warn_of_capitals(expected, next(expected.parts(), expected).value)
        else:
            _warn_of_unreadable(expected, key, "")


def _warn_of_capitals(part: ScriptNode, name: Any) -> None:
    """Warn of the name of an answer's header that is never found."""
    if isinstance(name, str) and "{{" not in name and name != name.lower():
        part.warn(
            f"finds nothing, as in Artillery: headers of answers have their names in lower case, `{name.lower()}`"
        )


def _warn_of_second_actions(item: ScriptNode, *used: str) -> None:
    """Warn of what else stands in an item, whose action is `used`: only in loops and `parallel` is that not refused."""
    for key, part in item.items():
        if key not in used:
            part.warn(f"has no effect beside `{used[0]}`; write it as a step of its own")


def _warn_of_unreadable(part: ScriptNode, source: str, flags: str) -> None:
    """Warn of an expression or query that cannot be read: such a capture or expectation always fails."""
    expression = part.value
    if not isinstance(expression, str) or "{{" in expression or source not in _READERS:
        return
    if said := _READERS[source](expression, flags):
        part.warn(f"cannot be read, so this always fails: {said.splitlines()[0]}")


def _complaint_about_regexp(expression: str, flags: str) -> str | None:
    try:
        compile_regex(expression, flags)
    except (re.error, RecursionError) as error:
        return str(error)
    return None


def _complaint_about_json(expression: str, _: str) -> str | None:
    # Most scripts capture nothing, and start quicker without this language.
    from loadgen.language.jsonpath import JsonPathError, check  # noqa: PLC0415

    try:
        check(expression)
    except (JsonPathError, RecursionError) as error:
        return str(error)
    return None


def _complaint_about_selector(expression: str, _: str) -> str | None:
    from loadgen.language.selectors import SelectorInvalid, compile_selector  # noqa: PLC0415 - few scripts need it

    try:
        compile_selector(expression)
    except SelectorInvalid as error:
        return str(error)
    return None


def _complaint_about_query(expression: str, _: str) -> str | None:
    from loadgen.language.queries import QueryError, check  # noqa: PLC0415 - few scripts need it

    try:
        check(expression)
    except QueryError as error:
        return str(error)
    return None


_READERS = {
    "jmespath": _complaint_about_query,
    "jpath": _complaint_about_query,
    "matchesRegexp": _complaint_about_regexp,
    "regexp": _complaint_about_regexp,
    "json": _complaint_about_json,
    "selector": _complaint_about_selector,
}


def media_type(path: str) -> str:
    """Return the media type of an uploaded file, guessed from its name."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _listed(part: ScriptNode) -> list[ScriptNode]:
    """Return the elements of a list; a single value counts as a list of one."""
    if part.value is ABSENT or part.value is None:
        return []
    return list(part.parts()) if isinstance(part.value, list) else [part]


def _object(part: ScriptNode) -> Mapping[str, Any]:
    return part.value if isinstance(part.value, Mapping) else {}


def _probability(part: ScriptNode) -> float | None:
    if part.value is ABSENT:
        return None
    percent = to_number(part.value)
    if not 0 <= percent <= 100:
        part.warn("is not a percentage from 0 to 100")
    return min(percent, 100.0) if percent == percent else 0.0  # noqa: PLR0124 - NaN
