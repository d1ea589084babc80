"""Compiles a request step, so that whatever is the same for all users is worked out only once."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loadgen.http.message import (
    FRAMING,
    BadRequestError,
    FormPart,
    Outgoing,
    address_of,
    basic,
    field_lines,
    form_text,
    is_field,
    multipart,
    query_text,
    with_query,
)
from loadgen.language.template import Function, Template, compile_template
from loadgen.language.values import UNDEFINED, json_text, text
from loadgen.script import model
from loadgen.script.flow import media_type
from loadgen.script.processor import Request
from loadgen.vu.answer import ENCODINGS
from loadgen.vu.vu import Setting

_REFUSED = "ERR_GOT_REQUEST_ERROR"


class Draft:
    """A compiled request step, which makes the request of each user."""

    def __init__(self, spec: model.RequestStep, setting: Setting) -> None:
        calls = setting.calls
        self.method = spec.method
        self.url = compile_template(_prefixed(spec.url, setting.script.target), calls)
        self._target = setting.script.target
        self._query = None
        if spec.query is not None:
            self._query = [(compile_template(k, calls), compile_template(v, calls)) for k, v in spec.query.items()]
        self._auth = None if spec.auth is None else compile_template(list(spec.auth), calls)
        self._fixed_fields, self._fields = _field_templates(spec, setting)
        self._bodies = [_body(body, calls) for body in spec.bodies]
        names = {name for name, _ in (*self._fixed_fields, *self._fields)}
        self._framed = not names.isdisjoint(FRAMING)
        # A traceparent of the script's own takes the place of a new one.
        self._tracing = None if "traceparent" in names else setting.script.http.tracing

    def constant(self) -> Outgoing | None:
        """The request, if every user sends the same; else None. Also None if it cannot be built: then each user fails."""
        templates = [self.url, *(t for _, t in self._fields)] + ([self._auth] if self._auth else [])
        templates += [t for pair in self._query or () for t in pair]
        if (
            self._tracing is not None
            or not all(body.constant for body in self._bodies)
            or not all(t.constant for t in templates)
        ):
            return None
        url = self.asked({})
        if not url.startswith("http"):
            return None
        try:
            return self.build({}, url)
        except BadRequestError:
            return None

    def asked(self, variables: Mapping[str, Any]) -> str:
        """The URL that the script asks for, with its templates filled in. It need not be a valid one."""
        url = text(self.url.render(variables))
        return self._target + url if url.startswith("/") else url

    def build(self, variables: Mapping[str, Any], url: str) -> Outgoing:
        """The request as a user with these variables sends it to this URL. Raises BadRequestError."""
        address = address_of(url)
        if self._query is not None:
            values = [(text(k.render(variables)), v.render(variables)) for k, v in self._query]
            address = with_query(address, query_text(values))
        fields = list(self._fixed_fields)
        cookie = ""
        for name, template in self._fields:
            lines = field_lines(name, template.render(variables))
            if name == "cookie":
                cookie = "; ".join(value for _, value in lines)
            else:
                fields += lines
        credentials = self._auth.render(variables) if self._auth is not None else address.userinfo
        if credentials is not None:
            fields = [f for f in fields if f[0] != "authorization"]
            fields.append(("authorization", basic(*("" if c is None else c for c in credentials))))
        if self._tracing is not None:
            fields.append(("traceparent", _traceparent(self._tracing)))
        body = self._body(variables, fields)
        return Outgoing(url, self.method, address, fields, body, cookie, self._framed and _says_length(fields))

    def _body(self, variables: Mapping[str, Any], fields: list[tuple[str, str]]) -> bytes | None:
        rendered = [made for body in self._bodies if (made := body.render(variables)) is not None]
        if not rendered:
            return None
        if len(rendered) > 1 or self.method in {"GET", "HEAD"}:
            raise BadRequestError(_REFUSED)
        content, content_type = rendered[0]
        if content_type and not any(name == "content-type" for name, _ in fields):
            fields.append(("content-type", content_type))
        return content


def _says_length(fields: list[tuple[str, str]]) -> bool:
    return any(name in FRAMING for name, _ in fields)


def editable(spec: model.RequestStep) -> Request:
    """The request of a step, as the functions of a processor are given it."""
    request = Request(
        spec.method,
        spec.url,
        dict(spec.headers),
        name=spec.name,
        qs=None if spec.query is None else dict(spec.query),
        cookie=dict(spec.cookies),
        auth=spec.auth,
        follow_redirect=spec.follow_redirect,
    )
    for body in spec.bodies:
        match body:
            case model.JsonBody(value):
                request.json = value
            case model.TextBody(value):
                request.body = value
            case model.FormBody(fields):
                request.form = dict(fields)
            case model.MultipartBody(parts):
                request.form_data = {part.name: _shown(part) for part in parts}
    return request


def _shown(part: FormPart) -> Any:
    """A part of a multipart body as the functions of a processor are given it."""
    if part.content is not None:
        return part.file_name, part.content, part.content_type
    return part if part.read is not None or part.content_type is not None else part.value


def complaint(request: Request) -> str | None:
    """What a function has made of a request that none can be; None if it can be tried."""
    for name, can_be_none in (("headers", False), ("cookie", False), ("qs", True), ("form", True), ("form_data", True)):
        value = getattr(request, name)
        if not (
            (value is None and can_be_none) or (isinstance(value, Mapping) and all(isinstance(k, str) for k in value))
        ):
            return f"request.{name} must be an object whose keys are texts, not {value!r}"
    auth, timeout_s = request.auth, request.timeout_s
    if not isinstance(request.method, str):
        return f"request.method must be a text, not {request.method!r}"
    if not (auth is None or isinstance(auth, Mapping) or (isinstance(auth, tuple | list) and len(auth) == 2)):
        return f"request.auth must be a user and a password, not {auth!r}"
    if timeout_s is not None and not (isinstance(timeout_s, int | float) and timeout_s > 0):
        return f"request.timeout_s must be a number of seconds above 0, not {timeout_s!r}"
    return None


def _part(name: str, value: Any) -> FormPart:
    if isinstance(value, FormPart):
        return value
    if isinstance(value, tuple):
        file_name, content, content_type = (*value, None)[:3]
        return FormPart(name, None, content_type or media_type(file_name), file_name, content)
    return FormPart(name, value)


def edited(spec: model.RequestStep, request: Request) -> model.RequestStep:
    """The step with a request as the functions left it."""
    auth: Any = request.auth
    bodies: tuple[model.Body, ...] = ()
    if request.json is not None:
        bodies = (model.JsonBody(request.json),)
    elif request.form is not None:
        bodies = (model.FormBody(request.form),)
    elif request.body is not None:
        bodies = (model.TextBody(request.body),)
    elif request.form_data is not None:
        bodies = (model.MultipartBody(tuple(_part(name, value) for name, value in request.form_data.items())),)
    return replace(
        spec,
        method=request.method.upper(),
        url=request.url,
        name=request.name,
        headers=request.headers,
        bodies=bodies,
        query=request.qs,
        cookies=request.cookie,
        auth=(auth.get("user"), auth.get("pass")) if isinstance(auth, Mapping) else auth,
        follow_redirect=request.follow_redirect,
    )


def _prefixed(url: Any, target: str) -> Any:
    return target + url if isinstance(url, str) and url.startswith("/") else url


def _field_templates(
    spec: model.RequestStep, setting: Setting
) -> tuple[list[tuple[str, str]], list[tuple[str, Template]]]:
    """The header fields, those of the request in place of the defaults: fields that never change, and templates of the others."""
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
    """A compiled body. `render` returns its content and its content type (or ""), or None for no body."""

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
            rendered = [
                (part, compile_template(part.value, calls), compile_template(part.file_name, calls)) for part in parts
            ]
            return _Body(False, lambda variables: _multipart_body(rendered, variables))


def _json_body(value: Any) -> tuple[bytes, str] | None:
    return None if value is UNDEFINED else (json_text(value).encode("utf-8", "replace"), "application/json")


def _text_body(value: Any) -> tuple[bytes, str] | None:
    if value is UNDEFINED:
        return None
    # A processor may set the body to bytes.
    if isinstance(value, bytes):
        return value, ""
    if not isinstance(value, str):
        raise BadRequestError(_REFUSED)
    return value.encode("utf-8", "replace"), ""


def _form_body(values: list[tuple[str, Template]], variables: Mapping[str, Any]) -> tuple[bytes, str]:
    filled = form_text((name, template.render(variables)) for name, template in values)
    return filled.encode(), "application/x-www-form-urlencoded"


def _multipart_body(
    parts: list[tuple[FormPart, Template, Template]], variables: Mapping[str, Any]
) -> tuple[bytes, str]:
    boundary = f"--------------------------{os.urandom(12).hex()}"
    filled = [
        replace(part, value=value.render(variables))
        if part.read is None
        else _read_part(part, text(name.render(variables)))
        for part, value, name in parts
    ]
    if any(isinstance(part.value, bool) for part in filled):
        raise BadRequestError("ERR_INVALID_ARG_TYPE")
    return multipart(filled, boundary), f"multipart/form-data; boundary={boundary}"


def _read_part(part: FormPart, path: str) -> FormPart:
    try:
        content = part.read(path) if part.read is not None else b""
    except OSError as error:
        raise BadRequestError(errno.errorcode.get(error.errno or 0, "EIO")) from None
    kind = part.content_type or media_type(path)
    return replace(part, content_type=kind, file_name=posixpath.basename(path.replace("\\", "/")), content=content)


def _traceparent(tracing: model.Tracing) -> str:
    """A new value of the traceparent field (W3C Trace Context, level 1)."""
    trace = (tracing.prefix + os.urandom(16).hex())[:32]
    return f"00-{trace}-{os.urandom(8).hex()}-{'01' if tracing.sampled else '00'}"
