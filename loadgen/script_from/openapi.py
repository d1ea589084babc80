"""Reads the operations of an OpenAPI document, versions 2.0 (Swagger) and 3.0 to 3.2, into one form. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from loadgen.script_from.draft import LeftOut, Unusable
from loadgen.script_from.references import References, beside

_METHODS = ("get", "post", "put", "patch", "delete")
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json|(?:\*|application)/\*|text/json", re.IGNORECASE)
_FORM = "application/x-www-form-urlencoded"
_BODIES = (
    ("json", _JSON),
    ("form", re.compile(re.escape(_FORM))),
    ("formData", re.compile(r"multipart/form-data", re.IGNORECASE)),
    ("body", re.compile(r"text/.*|application/(?:[\w.+-]+\+)?xml", re.IGNORECASE)),
)
"""How a script sends a kind of content, the best first."""
_OLD_STYLES = {"ssv": "spaceDelimited", "tsv": "tabDelimited", "pipes": "pipeDelimited"}
_A_FILE = {"type": "string", "format": "binary"}
_SCHEMA_KEYS = (
    *("type", "format", "items", "default", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "multipleOf", "uniqueItems", "x-example"),
)
_URL_BEFORE = re.compile(r"https?://[^/]+", re.IGNORECASE)
_COLON = re.compile(r"/:([A-Za-z_]\w*)(?=/|$)")
_VARIABLE = re.compile(r"\{([^{}]+)\}")
_SECRET = re.compile(
    r"(?:.*[-_.])?(?:(?:api|app|access|auth|client|subscription|secret)[-_. ]?(?:key|token|secret|id)|token|authorization)",
    re.IGNORECASE,
)
_WITHOUT_A_SERVER = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation."""

    name: str
    where: str
    """`path`, `query`, `header` or `cookie`."""
    required: bool
    schema: dict[str, Any]
    examples: Sequence[Any] = ()
    """The values that the parameter itself names, beside its schema."""
    style: str = "form"
    """How lists and objects are written, as in OpenAPI 3; `json` where the value is a text of JSON."""
    explode: bool = False
    """Whether each value of a list, and each property of an object, stands by itself."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body that an operation takes."""

    key: str
    """How a script sends it: `json`, `form`, `formData` (multipart) or `body` (a text); empty where it cannot be made up."""
    kind: str
    """The content type."""
    schema: Any
    examples: Sequence[Any] = ()
    required: bool = True


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to authenticate that needs one secret."""

    where: str
    """`header`, `query` or `cookie`; empty for one that cannot be used here."""
    name: str
    """Name of the header, parameter or cookie."""
    template: str
    """The value, with `{}` where the secret goes."""
    variable: str
    """The environment variable that has the secret."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    """In lower case."""
    path: str
    """As in the document, such as `/pets/{petId}`."""
    group: str
    """Its first tag, else the first part of its path that names something."""
    parameters: Sequence[Parameter]
    body: Body | None
    statuses: Sequence[int]
    """The documented statuses that mean success: 2xx, or 3xx where there is no 2xx."""
    answer: Any
    """The schema of a successful JSON answer; None where there is none."""
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By operation id: which parameter is where in the answer, as the runtime expression `$response.body#/...`."""
    operation_id: str = ""
    schemes: Sequence[Scheme] = ()
    """The secrets that it needs; empty where it can be asked without."""
    prefix: str = ""
    """What stands before the path, where the operation has a server of its own."""
    streams: bool = False
    """Whether its answer has no end (server-sent events)."""

    @property
    def label(self) -> str:
        """Method and path, such as `GET /pets/{petId}`."""
        return f"{self.method.upper()} {self.path}"


@dataclass(frozen=True, slots=True)
class Api:
    """What an OpenAPI document says of a service."""

    title: str
    version: str
    """Version of OpenAPI."""
    target: str
    """Base URL of the service, without a slash at the end."""
    named_target: bool
    """Whether the document names the host of that URL."""
    operations: Sequence[Operation]
    unreadable: Sequence[LeftOut]
    base_path: str = ""
    """The path of the server that the document names, without a slash at the end: what a target without one may lack."""


def is_openapi(document: Any) -> bool:
    """Whether a value is an OpenAPI document, of whatever version."""
    return isinstance(document, dict) and ("openapi" in document or "swagger" in document)


def read_api(document: Any, source: str, location: str, references: References, target: str | None = None) -> Api:
    """Read a document from `location`, which the user knows as `source`.

    `target` is used instead of the document's server. Raises Unusable for a version that is not known here."""
    version = str(document.get("openapi") or document.get("swagger"))
    if not version.startswith(("2.", "3.0", "3.1", "3.2")) and version != "2":
        raise Unusable(f"{source}: OpenAPI {version}; versions 2.0 and 3.0 to 3.2 can be read")
    paths = document.get("paths")
    if not isinstance(paths, dict) or not paths:
        raise Unusable(f"{source}: no `paths`: the document describes no endpoint")
    info = document.get("info")
    title = str(info.get("title") or "") if isinstance(info, dict) else ""
    try:
        server, named = _target(document, location)
    except Unusable:
        if target is None:
            raise
        server, named = target, True
    reader = _Reader(document, references, server)
    operations, unreadable = [], []
    for path, item in paths.items():
        for method in _METHODS:
            try:
                found = reader.operation(_plain_path(str(path)), item, method)
            except Unusable as lost:
                unreadable.append(LeftOut(f"{method.upper()} {path}", str(lost)))
            else:
                operations += [found] if found is not None else []
    base_path = urlsplit(server).path.rstrip("/")
    if target is not None:
        server, named = target.rstrip("/"), True
    return Api(title, version, server, named, operations, unreadable, base_path)


def _plain_path(path: str) -> str:
    """A path as OpenAPI writes it, where the document has a whole URL instead, or parameters with a colon (`/users/:id`)."""
    return _COLON.sub(r"/{\1}", _URL_BEFORE.sub("", path))


def _target(document: dict[str, Any], location: str) -> tuple[str, bool]:
    """The base URL that a document names, and whether it names a host. A relative one begins where the document was read."""
    fetched = urlsplit(location).scheme in ("http", "https")
    if "swagger" in document:
        host, base = str(document.get("host") or ""), str(document.get("basePath") or "")
        schemes = document.get("schemes")
        known = [str(each) for each in schemes if each in ("http", "https")] if isinstance(schemes, list) else []
        scheme = (
            "https" if "https" in known else known[0] if known else urlsplit(location).scheme if fetched else "https"
        )
        url = f"{scheme}://{host}{base}" if host else base or "/"
    else:
        url = _server(document.get("servers")) or _first_server(document) or "/"
    try:
        # A fragment is of the page that shows the document.
        whole = urlsplit(urljoin(location, url) if fetched else url)._replace(query="", fragment="")
        # Looking at the port checks it.
        named = whole.scheme in ("http", "https") and bool(whole.hostname) and (whole.port or 1) > 0
    except ValueError as error:
        raise Unusable(f"the server's URL {url} is invalid ({error}): --target names another") from None
    if "{{" in url:
        raise Unusable(f"the server's URL {url} has {{{{ in it: --target names another")
    if named:
        # A password does not belong in a script.
        return whole._replace(netloc=whole.netloc.rpartition("@")[2]).geturl().rstrip("/"), True
    path = whole.path
    return (_WITHOUT_A_SERVER + (path if path.startswith("/") else f"/{path}")).rstrip("/"), False


def _server(servers: Any) -> str:
    """The URL of the first server, its variables filled in by their defaults; empty where there is none."""
    first = servers[0] if isinstance(servers, list) and servers else None
    if not isinstance(first, dict):
        return ""
    variables = first.get("variables")
    variables = variables if isinstance(variables, dict) else {}

    def filled(match: re.Match[str]) -> str:
        variable = variables.get(match[1])
        variable = variable if isinstance(variable, dict) else {}
        if variable.get("default") is not None:
            return str(variable["default"])
        enum = variable.get("enum")
        return str(enum[0] if isinstance(enum, list) and enum else match[1])

    return _VARIABLE.sub(filled, str(first.get("url") or ""))


def _first_server(document: dict[str, Any]) -> str:
    """The server of the first operation that names one, for a document that names none for all; else empty."""
    for item in document["paths"].values():
        if isinstance(item, dict):
            holders = [*(item[method] for method in _METHODS if isinstance(item.get(method), dict)), item]
            for holder in holders:
                if url := _server(holder.get("servers")):
                    return url
    return ""


class _Reader:
    """Reads operations, whichever version the document has."""

    def __init__(self, document: dict[str, Any], references: References, server: str) -> None:
        """`server` is the base URL that the document names, whatever the script's target."""
        self._document, self._references, self._server = document, references, server
        self._old = "swagger" in document
        components = document.get("components")
        holder = document if self._old else components if isinstance(components, dict) else {}
        schemes = holder.get("securityDefinitions" if self._old else "securitySchemes")
        self._schemes: dict[str, Any] = schemes if isinstance(schemes, dict) else {}

    def operation(self, path: str, item: Any, method: str) -> Operation | None:
        """One operation; None where the path has no such method. Raises Unusable for references that lead nowhere."""
        item = self._references.resolve(item)
        if not isinstance(item.get(method), dict):
            return None
        spec = item[method]
        given = [
            self._references.resolve(each) for each in (*_listed(item, "parameters"), *_listed(spec, "parameters"))
        ]
        # A parameter of the operation replaces the path's of the same name and place.
        found = {(str(p.get("in")), str(p.get("name"))): p for p in given}
        statuses, answer, links, streams = self._responses(spec.get("responses"))
        tags = [str(tag) for tag in _listed(spec, "tags") if isinstance(tag, str)]
        schemes = self._needed(spec.get("security", self._document.get("security")))
        parameters = []
        for each in found.values():
            secret = _secret_parameter(each)
            if secret is not None:
                schemes += [secret] if all(secret.name.lower() != known.name.lower() for known in schemes) else []
            elif each.get("in") in ("path", "query", "header", "cookie"):
                parameters.append(self._parameter(each))
        return Operation(
            method,
            path,
            tags[0] if tags else first_name(path),
            parameters,
            self._body(spec, list(found.values())),
            statuses,
            answer,
            links,
            str(spec.get("operationId") or ""),
            schemes,
            self._prefix(spec.get("servers") or item.get("servers")),
            streams,
        )

    def _prefix(self, servers: Any) -> str:
        url = _server(servers)
        if not url:
            return ""
        try:
            own, base = urlsplit(beside(f"{self._server}/", url)), urlsplit(self._server)
        except ValueError:
            raise Unusable(f"its server's URL {url} is invalid") from None
        if own.netloc != base.netloc:
            raise Unusable(f"it is served by another host, {own.netloc}")
        if not f"{own.path}/".startswith(f"{base.path.rstrip('/')}/"):
            raise Unusable(f"it is served beside the target, under {own.path}")
        return own.path[len(base.path) :].rstrip("/")

    def _parameter(self, given: dict[str, Any]) -> Parameter:
        where, name = str(given["in"]), str(given.get("name"))
        content = given.get("content")
        examples = self._examples(given)
        if self._old:
            schema = {key: given[key] for key in _SCHEMA_KEYS if key in given}
            style = _OLD_STYLES.get(str(given.get("collectionFormat")), "form")
            explode = given.get("collectionFormat") == "multi"
        else:
            node = given.get("schema")
            style = str(given.get("style") or ("form" if where in ("query", "cookie") else "simple"))
            if node is None and isinstance(content, dict) and content:
                kind, holder = next(iter(content.items()))
                holder = self._references.resolve(holder)
                node, style = holder.get("schema"), "json" if _JSON.match(str(kind)) else style
                examples += self._examples(holder)
            schema = self._references.resolve(node)
            explode = bool(given.get("explode", style == "form"))
        return Parameter(name, where, bool(given.get("required")) or where == "path", schema, examples, style, explode)

    def _examples(self, holder: dict[str, Any]) -> list[Any]:
        """The values of `example` and `examples` of a parameter or of a kind of content."""
        out = [holder["example"]] if holder.get("example") is not None else []
        several = holder.get("examples")
        for each in several.values() if isinstance(several, dict) else ():
            value = self._references.resolve(each).get("value")
            out += [value] if value is not None else []
        return out

    def _body(self, spec: dict[str, Any], parameters: Sequence[dict[str, Any]]) -> Body | None:
        if self._old:
            return self._old_body(spec, parameters)
        given = self._references.resolve(spec.get("requestBody"))
        content = given.get("content")
        if not isinstance(content, dict) or not content:
            return None
        required = bool(given.get("required"))
        for key, wanted in _BODIES:
            for kind, holder in content.items():
                if wanted.fullmatch(str(kind).partition(";")[0].strip()):
                    holder = self._references.resolve(holder)  # noqa: PLW2901 - the same, resolved
                    return Body(key, str(kind), holder.get("schema"), self._examples(holder), required)
        return Body("", str(next(iter(content))), None, (), required)

    def _old_body(self, spec: dict[str, Any], parameters: Sequence[dict[str, Any]]) -> Body | None:
        kinds = [str(kind) for kind in (_listed(spec, "consumes") or _listed(self._document, "consumes"))]
        for each in parameters:
            if each.get("in") == "body":
                key, kind = next(
                    ((key, kind) for key, wanted in _BODIES for kind in kinds if wanted.fullmatch(kind)),
                    ("", kinds[0]) if kinds else ("json", "application/json"),
                )
                return Body(key, kind, each.get("schema"), self._examples(each), bool(each.get("required")))
        fields = [each for each in parameters if each.get("in") == "formData"]
        if not fields:
            return None
        required = [str(each.get("name")) for each in fields if each.get("required")]
        properties = {
            str(each.get("name")): _A_FILE
            if each.get("type") == "file"
            else {key: each[key] for key in _SCHEMA_KEYS if key in each}
            for each in fields
        }
        schema = {"type": "object", "properties": properties, "required": required}
        multipart = _A_FILE in properties.values() or (kinds and _FORM not in kinds)
        key, kind = ("formData", "multipart/form-data") if multipart else ("form", _FORM)
        return Body(key, kind, schema, (), bool(required))

    def _responses(self, responses: Any) -> tuple[list[int], Any, dict[str, dict[str, str]], bool]:
        """The successful statuses, the schema of their JSON, their links, and whether they stream."""
        given = responses if isinstance(responses, dict) else {}
        exact = sorted(int(code) for code in given if re.fullmatch("[23][0-9]{2}", code))
        statuses = [code for code in exact if code < 300] or exact
        names = [*map(str, statuses), *(name for name in ("2XX", "2xx", "default") if name in given)]
        answer, streams = None, False
        links: dict[str, dict[str, str]] = {}
        for name in names:
            response = self._references.resolve(given[name])
            content = response.get("content")
            content = content if isinstance(content, dict) else {}
            streams = streams or any(str(kind).startswith("text/event-stream") for kind in content)
            if answer is None:
                answer = response.get("schema") if self._old else self._json_of(content)
            links |= self._links(response.get("links"))
        if "2XX" in given or "2xx" in given:
            statuses = []
        return statuses, answer, links, streams

    def _json_of(self, content: dict[str, Any]) -> Any:
        for kind, holder in content.items():
            if _JSON.match(str(kind)):
                return self._references.resolve(holder).get("schema")
        return None

    def _links(self, links: Any) -> dict[str, dict[str, str]]:
        found = {}
        for link in links.values() if isinstance(links, dict) else ():
            spec = self._references.resolve(link)
            parameters = spec.get("parameters")
            if isinstance(spec.get("operationId"), str) and isinstance(parameters, dict):
                found[spec["operationId"]] = {name.rpartition(".")[2]: str(at) for name, at in parameters.items()}
        return found

    def _needed(self, security: Any) -> list[Scheme]:
        """The secrets of the first alternative that can be met; none where there is an alternative without any."""
        alternatives = [each for each in security if isinstance(each, dict)] if isinstance(security, list) else []
        if not alternatives or {} in alternatives:
            return []
        known = [[self._scheme(name) for name in alternative] for alternative in alternatives]
        return next((each for each in known if all(scheme.where for scheme in each)), known[0])

    def _scheme(self, name: str) -> Scheme:
        spec = self._references.resolve(self._schemes.get(name))
        kind, way = spec.get("type"), str(spec.get("scheme") or "").lower()
        if kind == "apiKey":
            place = str(spec.get("name") or "")
            return Scheme(str(spec.get("in") or ""), place, "{}", environment_name(place))
        if kind == "basic" or (kind == "http" and way == "basic"):
            return Scheme("header", "Authorization", "Basic {}", "BASIC_AUTH")
        if kind in ("oauth2", "openIdConnect") or (kind == "http" and way == "bearer"):
            return Scheme("header", "Authorization", "Bearer {}", "TOKEN")
        return Scheme("", name, "{}", "")


def _secret_parameter(parameter: dict[str, Any]) -> Scheme | None:
    """The secret that a required parameter is, by its name; None for one that is no secret."""
    where, name = parameter.get("in"), str(parameter.get("name"))
    if where not in ("header", "query") or not parameter.get("required") or not _SECRET.fullmatch(name):
        return None
    return Scheme(where, name, "{}", environment_name(name))


def environment_name(name: str) -> str:
    """The environment variable for the secret that is sent under a name: `TOKEN` for Authorization, `API_KEY` for X-API-Key."""
    if name.lower() in ("authorization", "proxy-authorization"):
        return "TOKEN"
    return re.sub(r"[^A-Z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()).strip("_").removeprefix("X_")


def first_name(path: str) -> str:
    """The first part of a path that names something: no version, no `api`, no parameter."""
    for part in path.strip("/").split("/"):
        if part and not part.startswith("{") and not re.fullmatch(r"v\d[\w.]*|api|rest|services?", part, re.IGNORECASE):
            return part
    return "all"


def _listed(holder: Mapping[str, Any], key: str) -> Iterator[Any] | list[Any]:
    value = holder.get(key)
    return value if isinstance(value, list) else []
