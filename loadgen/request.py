"""A request step, compiled: what a virtual user does to send one, follow its redirects and judge its answer.

All that does not depend on the virtual user is worked out once, here: a request without placeholders is bytes before the
first user starts. Metrics, error names and their order are Artillery's.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from loadgen.clock import now_ns
from loadgen.cookies import Jar
from loadgen.exchange import Exchange, Failure, Origin
from loadgen.message import (
    Address,
    BadRequestError,
    Outgoing,
    address_of,
    basic,
    field_lines,
    form_text,
    is_field,
    multipart,
    query_text,
    redirected,
    with_query,
)
from loadgen.recorder import Recorder
from loadgen.script import model
from loadgen.script.answer import ENCODINGS, Answer
from loadgen.script.capture import compile_captures
from loadgen.script.expect import Exchanged, compile_expectations, console_text
from loadgen.script.expressions import compile_expression
from loadgen.script.template import Function, Template, compile_template
from loadgen.script.values import UNDEFINED, json_text, text, truthy

REDIRECTS_MAX = 10
_REDIRECTS = frozenset((300, 301, 302, 303, 304, 307, 308))
_REFUSED = "ERR_GOT_REQUEST_ERROR"
_NEVER_PLAIN = re.compile(r"""[\s"'<>`{}|\\^]""")
_NOWHERE = Address(Origin("http", "", 0), "/", "")
_TOTAL = re.compile(r"total;dur=([0-9.]+)", re.IGNORECASE)


class VuFailedError(Exception):
    """Ends a virtual user; `name` is the error's name in the metrics."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Vu:
    """One virtual user on its way: its variables, cookies and connections."""

    __slots__ = ("cookies_on", "exchange", "intended_ns", "jar", "variables")

    def __init__(
        self,
        variables: dict[str, Any],
        exchange: Callable[..., Exchange | Failure],
        intended_ns: int,
        *,
        cookies_on: bool,
    ) -> None:
        self.variables = variables
        self.exchange = exchange
        self.intended_ns = intended_ns
        """When the plan wanted its next request; 0 once it has made one."""
        self.jar: Jar | None = None
        self.cookies_on = cookies_on
        """A default cookie, or the first Set-Cookie, switches the jar on."""


Action = Callable[[Vu], None]
"""A compiled step. Raises VuFailedError."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all steps of a run are compiled with."""

    script: model.Script
    recorder: Recorder
    rng: Random
    calls: Mapping[str, Function]
    agent: str
    """The User-Agent that is sent where the script names none."""
    write_line: Callable[[str], None]
    """Takes a line for stdout."""
    expectation_failed: Callable[[], None]


def compile_request(spec: model.Request, setting: Setting) -> Action:
    """The action of a request step."""
    action = _Request(spec, setting).action()
    if spec.if_true is not None:
        action = _only_if(spec.if_true, action)
    if spec.probability is not None:
        action = _perhaps(spec.probability, setting.rng, action)
    return action


def _only_if(condition: str, action: Action) -> Action:
    holds = compile_expression(condition)

    def act(vu: Vu) -> None:
        try:
            wanted = truthy(holds(vu.variables))
        except (re.error, ArithmeticError):  # an expression that cannot be worked out counts as true
            wanted = True
        if wanted:
            action(vu)

    return act


def _perhaps(percent: float, rng: Random, action: Action) -> Action:
    def act(vu: Vu) -> None:
        if rng.random() * 100 < percent:
            action(vu)

    return act


class _Request:
    """One request step while it is compiled, and the rarer parts of what it does later."""

    def __init__(self, spec: model.Request, setting: Setting) -> None:
        script, calls = setting.script, setting.calls
        self.spec = spec
        self.setting = setting
        self.http = script.http
        self.recorder = setting.recorder
        self.url = compile_template(_prefixed(spec.url, script.target), calls)
        self.name = compile_template(spec.name, calls)
        self.query = None if spec.query is None else [
            (compile_template(k, calls), compile_template(v, calls)) for k, v in spec.query.items()
        ]  # fmt: skip
        self.auth = None if spec.auth is None else compile_template(list(spec.auth), calls)
        self.cookies = compile_template({**self.http.cookies, **spec.cookies}, calls)
        self.fixed_fields, self.fields = _field_templates(spec, setting)
        self.bodies = [_body(body, calls) for body in spec.bodies]
        self.captures = compile_captures(
            spec.captures, calls, setting.rng, strict_default=self.http.strict_capture
        ) if spec.captures else None  # fmt: skip
        self.expectations = None
        if script.expect is not None:
            self.expectations = compile_expectations(spec.expectations, script.expect, calls)
        self.want_body = self.captures is not None or self.expectations is not None
        self.metrics = script.endpoint_metrics
        self._endpoints: dict[str, int | None] = {}
        self._grouped = self._grouped_name()
        """Name of the endpoint where it is the same for all users; else None."""

    def action(self) -> Action:
        """The fastest action that does what the step says."""
        outgoing = self._constant()
        return self._templated if outgoing is None else self._static(outgoing)

    def _constant(self) -> Outgoing | None:
        """The request, if every user sends the same; None also where building it fails (each user then fails)."""
        templates = [self.url, self.cookies, *(t for _, t in self.fields)]
        templates += [t for pair in self.query or () for t in pair] + ([self.auth] if self.auth else [])
        varying = self.http.tracing is not None or any(isinstance(b, model.MultipartBody) for b in self.spec.bodies)
        if varying or not all(t.constant for t in templates) or not all(b.constant for b in self.bodies):
            return None
        url = self._shown_url({})
        if self.cookies.value or not url.startswith("http"):
            return None
        try:
            return self.build({}, url)
        except BadRequestError:
            return None

    def _static(self, outgoing: Outgoing) -> Action:
        """The hot path: nothing to render; as few operations as there are."""
        data = outgoing.encoded()
        origin = outgoing.address.origin
        is_head, want_body = outgoing.method == "HEAD", self.want_body
        recorder = self.recorder
        created, answered, final = recorder.request, recorder.response, recorder.endpoint_response
        endpoint = self._endpoint(self._endpoint_name(outgoing, {}))
        judges = self._judges()
        follows = self.spec.follow_redirect

        def act(vu: Vu) -> None:
            if vu.cookies_on:
                self._exchange(vu, outgoing)
                return
            created(now_ns())
            result = vu.exchange(origin, data, method_is_head=is_head, want_body=want_body)
            if isinstance(result, Failure):
                raise self._failed(vu, result, outgoing)
            answered(result, vu.intended_ns)
            vu.intended_ns = 0
            head = result.head.lower()
            if b"\nset-cookie:" in head or (300 <= result.status < 400 and follows):
                self._after_answer(vu, outgoing, result, 0)
            elif judges or b"\nserver-timing:" in head:
                self._judge(vu, outgoing, result)
            elif endpoint is not None:
                final(endpoint, result)

        return act

    def _templated(self, vu: Vu) -> None:
        url = self._shown_url(vu.variables)
        if not url.startswith("http"):
            raise VuFailedError(f"Invalid URL - {url}")
        try:
            outgoing = self.build(vu.variables, url)
        except BadRequestError as error:
            unsent = Outgoing(url, self.spec.method, _NOWHERE, [])
            raise self._error(vu, error.name, unsent, error.name) from None
        cookies = self.cookies.render(vu.variables)
        if cookies:
            self._put_cookies(vu, cookies, outgoing.address)
        self._exchange(vu, outgoing, with_jar=bool(cookies))

    def build(self, variables: Mapping[str, Any], url: str) -> Outgoing:
        """The request as this user sends it. Raises BadRequestError."""
        address = address_of(url)
        if self.query is not None:
            values = [(text(k.render(variables)), v.render(variables)) for k, v in self.query]
            address = with_query(address, query_text(values))
        fields = list(self.fixed_fields)
        cookie = ""
        for name, template in self.fields:
            lines = field_lines(name, template.render(variables))
            if name == "cookie":
                cookie = "; ".join(value for _, value in lines)
            else:
                fields += lines
        credentials = self.auth.render(variables) if self.auth is not None else address.userinfo
        if credentials is not None:
            fields = [f for f in fields if f[0] != "authorization"]
            fields.append(("authorization", basic(*("" if c is None else c for c in credentials))))
        if self.http.tracing is not None:
            fields.append(("traceparent", _traceparent(self.http.tracing)))
        body = self._body(variables, fields)
        return Outgoing(url, self.spec.method, address, fields, body, cookie)

    def _body(self, variables: Mapping[str, Any], fields: list[tuple[str, str]]) -> bytes | None:
        rendered = [made for body in self.bodies if (made := body.render(variables)) is not None]
        if not rendered:
            return None
        if len(rendered) > 1 or self.spec.method in {"GET", "HEAD"}:
            raise BadRequestError(_REFUSED)
        content, content_type = rendered[0]
        if content_type and not any(name == "content-type" for name, _ in fields):
            fields.append(("content-type", content_type))
        return content

    def _shown_url(self, variables: Mapping[str, Any]) -> str:
        url = text(self.url.render(variables))
        return self.setting.script.target + url if url.startswith("/") else url

    def _put_cookies(self, vu: Vu, cookies: Mapping[str, Any], address: Address) -> None:
        vu.jar = vu.jar or Jar()
        for name, value in cookies.items():
            vu.jar.store(f"{name}={text(value)}", address.origin.host, address.target, time.time())

    def _exchange(self, vu: Vu, outgoing: Outgoing, hop: int = 0, *, with_jar: bool = False) -> None:
        """Send a request and all that follows from its answer."""
        cookie, address = "", outgoing.address
        if vu.jar is not None and (vu.cookies_on or with_jar):
            secure = address.origin.scheme == "https"
            cookie = vu.jar.header(address.origin.host, address.target, time.time(), secure=secure)
        try:
            data = outgoing.encoded(cookie)
        except UnicodeEncodeError:
            raise VuFailedError("ERR_INVALID_CHAR") from None
        self.recorder.request(now_ns())
        is_head = outgoing.method == "HEAD"
        result = vu.exchange(address.origin, data, method_is_head=is_head, want_body=self.want_body)
        if isinstance(result, Failure):
            raise self._failed(vu, result, outgoing)
        self.recorder.response(result, vu.intended_ns)
        vu.intended_ns = 0
        self._after_answer(vu, outgoing, result, hop, with_jar=with_jar)

    def _after_answer(self, vu: Vu, outgoing: Outgoing, result: Exchange, hop: int, *, with_jar: bool = False) -> None:
        """Keep its cookies; follow it, or take it as final."""
        self._keep_cookies(vu, result, outgoing.address)
        location = result.header("location") if result.status in _REDIRECTS and self.spec.follow_redirect else None
        if location is None:
            self._judge(vu, outgoing, result)
            return
        if self.http.extended_metrics:
            self._extended(outgoing, result)
        if hop == REDIRECTS_MAX:
            raise self._error(vu, "ERR_TOO_MANY_REDIRECTS", outgoing, "Redirected 10 times. Aborting.")
        try:
            address = redirected(outgoing.address, location)
        except BadRequestError as error:
            raise self._error(vu, error.name, outgoing, "Invalid URL") from None
        self._exchange(vu, outgoing.followed(address, result.status), hop + 1, with_jar=with_jar)

    def _keep_cookies(self, vu: Vu, result: Exchange, address: Address) -> None:
        if b"\nset-cookie:" not in result.head.lower():
            return
        vu.cookies_on = True
        vu.jar = vu.jar or Jar()
        for name, value in result.headers():
            if name.lower() == "set-cookie":
                vu.jar.store(value, address.origin.host, address.target, time.time())

    def _judges(self) -> bool:
        """Whether a final answer has more to it than its endpoint's metrics."""
        script = self.setting.script
        return bool(
            self.want_body
            or self.http.extended_metrics
            or script.apdex_threshold_ms is not None
            or self._grouped is None
        )

    def _judge(self, vu: Vu, outgoing: Outgoing, result: Exchange) -> None:
        """Captures first, then expectations, apdex and the endpoint's metrics; then a failed capture ends the user."""
        if self.http.extended_metrics:
            self._extended(outgoing, result)
        captured = True
        if self.want_body:
            answer = Answer(result.status, result.head, result.body, decode=self.spec.gzip)
            captured = self.captures is None or self.captures(answer, vu.variables)
            if self.expectations is not None:
                self._expect(vu, outgoing, answer)
        self._apdex(result)
        name = self._endpoint_name(outgoing, vu.variables)
        endpoint = self._endpoint(name)
        if endpoint is not None:
            self.recorder.endpoint_response(endpoint, result)
            self._server_timing(name, result)
        if not captured:
            raise VuFailedError("Failed capture or match")

    def _expect(self, vu: Vu, outgoing: Outgoing, answer: Answer) -> None:
        plugin = self.setting.script.expect
        if plugin is None or self.expectations is None:
            return
        results, messages = self.expectations(answer, vu.variables)
        for message in messages:
            self.setting.write_line(message)
        for result in results:
            verdict = "ok" if result.ok else "failed"
            self.recorder.count(f"plugins.expect.{verdict}")
            self.recorder.count(f"plugins.expect.{verdict}.{result.kind}")
        name = self._name(vu.variables)
        sent = next((b.value for b in self.spec.bodies if isinstance(b, model.JsonBody)), None)
        exchanged = Exchanged(
            self.spec.method, outgoing.asked, _asked_path(outgoing.asked), name,
            compile_template(sent, self.setting.calls).render(vu.variables), answer, vu.variables,
        )  # fmt: skip
        shown = console_text(results, exchanged, plugin.output)
        if shown:
            self.setting.write_line(shown)
        if all(result.ok for result in results):
            return
        self.setting.expectation_failed()
        if plugin.failures_are_errors:
            said = name if plugin.only_request_names and name else outgoing.asked
            raise VuFailedError(f"Failed expectations for request {said}")

    def _name(self, variables: Mapping[str, Any]) -> str | None:
        name = self.name.render(variables)
        return None if name is None or name is UNDEFINED else text(name)

    def _apdex(self, result: Exchange) -> None:
        threshold_ms = self.setting.script.apdex_threshold_ms
        if threshold_ms is None:
            return
        total_ms = (result.last_byte_ns - result.started_ns) / 1e6
        reached = 0 if total_ms <= threshold_ms else (1 if total_ms <= 4 * threshold_ms else 2)
        for i, name in enumerate(("satisfied", "tolerated", "frustrated")):
            self.recorder.count(f"apdex.{name}", int(i == reached))

    def _extended(self, outgoing: Outgoing, result: Exchange) -> None:
        dns_ns, tcp_ns, tls_ns = result.setup_ns
        self.recorder.sample("http.dns", dns_ns / 1e6)
        self.recorder.sample("http.tcp", tcp_ns / 1e6)
        if outgoing.address.origin.scheme == "https":
            self.recorder.sample("http.tls", tls_ns / 1e6)
        self.recorder.sample("http.total", (result.last_byte_ns - result.started_ns) / 1e6)

    def _server_timing(self, name: str, result: Exchange) -> None:
        value = result.header("server-timing") if b"\nserver-timing:" in result.head.lower() else None
        if value is not None:
            total = _TOTAL.search(value)
            self.recorder.sample(f"{self.metrics.namespace}.server-timing.{name}", float(total[1]) if total else -1.0)

    def _grouped_name(self) -> str | None:
        if not self.metrics.group_dynamic_urls and not (self.url.constant and self.name.constant):
            return None
        return self._name_of(text(self.url.value), self.name.value)

    def _name_of(self, url: str, name: Any) -> str:
        shown = endpoint_name(self.setting.script.target, url, strip_query=self.metrics.strip_query)
        if not name:
            return "" if self.metrics.ignore_unnamed else shown
        return text(name) if self.metrics.only_request_names else f"{shown} ({text(name)})"

    def _endpoint_name(self, outgoing: Outgoing, variables: Mapping[str, Any]) -> str:
        """The request's endpoint in the metrics; empty where it is not to be counted."""
        return self._name_of(outgoing.asked, self._name(variables)) if self._grouped is None else self._grouped

    def _endpoint(self, name: str) -> int | None:
        """The recorder's number of an endpoint."""
        if name not in self._endpoints:
            self._endpoints[name] = self.recorder.endpoint(name, self.metrics.namespace) if name else None
        return self._endpoints[name]

    def _failed(self, vu: Vu, failure: Failure, outgoing: Outgoing) -> VuFailedError:
        if failure.response is not None:
            self.recorder.response(failure.response, vu.intended_ns)
        origin = outgoing.address.origin
        said = f"connect {failure.name} {origin.host}:{origin.port}" if failure.stage == "connect" else failure.name
        return self._error(vu, failure.name, outgoing, said)

    def _error(self, vu: Vu, name: str, outgoing: Outgoing, said: str) -> VuFailedError:
        """Tell the plugins that the request came to nothing."""
        endpoint = self._endpoint_name(outgoing, vu.variables)
        if endpoint:
            self.recorder.count(f"{self.metrics.namespace}.{endpoint}.errors.{name}")
        plugin = self.setting.script.expect
        if plugin is not None:
            line = json_text({"ok": False, "error": said}) if plugin.output == "json" else f"Error: {said}"
            self.setting.write_line(line)
        return VuFailedError(name)


def _asked_path(url: str) -> str:
    """Path and query of a URL as Node's `url.parse` shows them: not made plain, only what no URL has is encoded."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _NEVER_PLAIN.sub(lambda match: quote(match.group()), path)


def _prefixed(url: Any, target: str) -> Any:
    return target + url if isinstance(url, str) and url.startswith("/") else url


def _field_templates(spec: model.Request, setting: Setting) -> tuple[list[tuple[str, str]], list[tuple[str, Template]]]:
    """Header fields by lower-case name, the request's over the defaults: (the same for all users, the others)."""
    fields: dict[str, Any] = {"user-agent": setting.agent}
    if spec.gzip:
        fields["accept-encoding"] = ENCODINGS
    for given in (setting.script.http.headers or {}, spec.headers):
        fields |= {name.lower(): value for name, value in given.items()}
    fixed: list[tuple[str, str]] = []
    varying: list[tuple[str, Template]] = []
    for name, value in fields.items():
        template = compile_template(value, setting.calls)
        if template.constant and isinstance(value, str) and name != "cookie" and is_field(name, value):
            fixed.append((name, value))
        else:
            varying.append((name, template))
    return fixed, varying


@dataclass(frozen=True, slots=True)
class _Body:
    """A compiled body. `render` gives (content, content type or ""), None for no body."""

    constant: bool
    render: Callable[[Mapping[str, Any]], tuple[bytes, str] | None]


def _body(body: model.Body, calls: Mapping[str, Function]) -> _Body:
    match body:
        case model.JsonBody(value):
            template = compile_template(value, calls)
            return _Body(template.constant, lambda variables: _json_body(template.render(variables)))
        case model.TextBody(value):
            template = compile_template(value, calls)
            return _Body(template.constant, lambda variables: _text_body(template.render(variables)))
        case model.FormBody(fields):
            values = [(name, compile_template(value, calls)) for name, value in fields.items()]
            return _Body(all(t.constant for _, t in values), lambda variables: _form_body(values, variables))
        case model.MultipartBody(parts):
            rendered = [(part, compile_template(part.value, calls)) for part in parts]
            return _Body(False, lambda variables: _multipart_body(rendered, variables))


def _json_body(value: Any) -> tuple[bytes, str] | None:
    return None if value is UNDEFINED else (json_text(value).encode("utf-8", "replace"), "application/json")


def _text_body(value: Any) -> tuple[bytes, str] | None:
    if value is UNDEFINED:
        return None
    if not isinstance(value, str):
        raise BadRequestError(_REFUSED)
    return value.encode("utf-8", "replace"), ""


def _form_body(values: list[tuple[str, Template]], variables: Mapping[str, Any]) -> tuple[bytes, str]:
    filled = form_text((name, template.render(variables)) for name, template in values)
    return filled.encode(), "application/x-www-form-urlencoded"


def _multipart_body(parts: list[tuple[model.Part, Template]], variables: Mapping[str, Any]) -> tuple[bytes, str]:
    boundary = f"--------------------------{secrets.token_hex(12)}"
    filled = [replace(part, value=template.render(variables)) for part, template in parts]
    if any(isinstance(part.value, bool) for part in filled):
        raise BadRequestError("ERR_INVALID_ARG_TYPE")
    return multipart(filled, boundary), f"multipart/form-data; boundary={boundary}"


def _traceparent(tracing: model.Tracing) -> str:
    """W3C Trace Context, level 1."""
    trace = (tracing.prefix + secrets.token_hex(16))[:32]
    return f"00-{trace}-{secrets.token_hex(8)}-{'01' if tracing.sampled else '00'}"


def endpoint_name(target: str, url: str, *, strip_query: bool) -> str:
    """A URL as the endpoint metrics name it: host and port where they are not the target's, then the path, decoded."""
    try:
        here, there = urlsplit(target), urlsplit(url)
        host = there.hostname or ""
        name = host if host and host != here.hostname else ""
        if there.port is not None and there.port != here.port:
            name += f":{there.port}"
    except ValueError:
        return url
    path = there.path or "/"
    if there.query and not strip_query:
        path += f"?{there.query}"
    return name + unquote(path)
