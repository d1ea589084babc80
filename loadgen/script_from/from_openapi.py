"""Makes the draft of a script from an OpenAPI document: which operations can be requested, with which values, in which order.

An id comes out of the answer of the list before it (`GET /pets` gives the `petId` of `GET /pets/{petId}`), from a link that
the document describes, or from an example. An operation that nothing is known for is left out, with the reason. Where the
service can be asked, each GET is asked once, and what it answers counts more than what the document says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from loadgen.script_from.captures import outline, path_of, path_of_pointer, singular, value_at
from loadgen.script_from.draft import Capture, Draft, Flow, LeftOut, NothingToRequest, Secret, Step, Unusable, counted
from loadgen.script_from.openapi import Api, Operation, Parameter, Scheme, first_name
from loadgen.script_from.references import References
from loadgen.script_from.samples import NoSample, declared, fits, sample, text_sample, type_of
from loadgen.script_from.serialized import as_text, path_text, query_pairs

_STEPS_MAX = 12
_THINK_S = 1.0
_ID_LIKE = re.compile(r"(?:^|[a-z_.-])(?:id|ids|uuid|guid|key|token|cursor|sha|hash|slug)$", re.IGNORECASE)
_ENDS_SOMETHING = re.compile(
    r"log[-_]?out|log[-_]?off|sign[-_]?out|shut[-_]?down|reboot|destroy|unsubscribe|password[-_]?reset"
    # At the beginning of a word: deleteuser. Not deleted, killers, restarts, killmails.
    r"|(?<![a-z])(?:restart|delete|kill|purge|revoke|reset)(?!(?:e?d|e?rs?|s|t?ing|mails?|stat(?:istic)?s)(?![a-z]))"
    # At its end: userdelete. Not skill, preset.
    r"|(?:(?<!s)kill|(?<!p)reset|restart|delete|purge|revoke)(?![a-z])"
)
_NEXT_WORD = re.compile(r"(?<=[a-z\d])(?=[A-Z])")
_USUAL_JSON = ("application/json", "*/*", "application/*")
_KNOWN_FORMATS = ("date", "date-time")
_SENT_AS_IS = "!#$%&'()*+,/:;=?@[]~"
_NOT_AS_PARAMETERS = ("accept", "content-type", "authorization")
_TO_LOGIN = re.compile(r"/(?:log-?in|sign-?in|auth|oauth2?|sso)\b", re.IGNORECASE)
_TEMPLATE = "{{ $processEnvironment.%s }}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the service answered to a GET while the script was made."""

    status: int = 0
    """0 where no answer came."""
    body: Any = None
    """The JSON value; None for an answer that is not JSON."""
    location: str = ""
    ms: float = 0.0
    error: str = ""
    """Why no answer came, such as ECONNRESET."""


Ask = Callable[[str, Mapping[str, str]], Asked | None]
"""Sends a GET with a path behind the target, and headers. None: the service is no longer asked."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is wanted of the script."""

    target: str
    writes: bool = False
    """Whether operations that change something are requested, too."""
    limit: int = 100
    """The most operations."""
    named: bool = False
    """Whether the user has named the target, or it is this machine. Then a document without any GET gives POSTs."""
    environment: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    """Values for parameters of these names, whatever the document says."""


@dataclass(frozen=True, slots=True)
class _Need:
    """A value that an operation takes out of another's answer."""

    source: _Ready
    capture: Capture


@dataclass(frozen=True, slots=True)
class _Guess:
    """A value made up for a parameter of a path, which the service may not know; `why` nothing better was found."""

    value: Any
    why: str


@dataclass(slots=True)
class _Ready:
    """An operation that can be requested."""

    operation: Operation
    url: str
    needs: Sequence[_Need]
    headers: Mapping[str, str]
    body: tuple[str, Any] | None
    expect: Sequence[int]
    follow: bool = True
    guess: str = ""
    """Why a parameter of its path had to be made up; empty where none was."""
    answer: Any = None
    """What the service has answered; None where it was not asked."""
    wanted: list[Capture] = field(default_factory=list)
    """What others take out of its answer."""


def draft_from_api(api: Api, references: References, choice: Choice, ask: Ask | None = None) -> Draft:
    """Make the draft. Raises NothingToRequest where no operation can be requested."""
    planner = _Planner(api, references, choice, ask)
    # A service that only takes POSTs, such as one that calculates, would otherwise have no script at all.
    gets = [o for o in api.operations if o.method == "get"]
    gets_lost = any(each.request.startswith("GET ") for each in api.unreadable)
    only_posts = choice.named and not (choice.writes or gets or gets_lost)
    methods = ("get", "post", "put", "patch", "delete") if choice.writes else ("post",) if only_posts else ("get",)
    # Those without parameters come first: the others take their ids from them.
    wanted = sorted((o for o in api.operations if o.method in methods), key=lambda o: o.path.count("{"))
    ready: list[_Ready] = []
    left = [each for each in api.unreadable if each.request.partition(" ")[0].lower() in methods]
    beyond = 0
    for operation in wanted:
        if len(ready) == choice.limit:
            beyond += 1
            continue
        found = planner.settle(operation)
        if isinstance(found, _Ready):
            ready.append(found)
        else:
            left.append(found)
    changing = [o for o in api.operations if o.method not in methods]
    notes = []
    if only_posts and ready:
        notes.append("The document has no GET: this script makes POSTs, which may change something.")
    if not ready:
        raise NothingToRequest(_nothing(api, left, changing), left)
    if beyond:
        notes.append(f"Not in this script: {counted(beyond, 'operation')} beyond --limit {choice.limit}.")
    if changing:
        notes.append(
            f"Not in this script: {counted(len(changing), 'operation')} that may change something; --writes adds them."
        )
    order = {operation.label: place for place, operation in enumerate(api.operations)}
    flows = _flows(sorted(ready, key=lambda each: order[each.operation.label]))
    title = f"{api.title or 'a service'} (OpenAPI {api.version})"
    return Draft(title, choice.target, flows, left, planner.secrets(ready), planner.slowest_ms, notes)


def _nothing(api: Api, left: Sequence[LeftOut], changing: Sequence[Operation]) -> str:
    reasons = [f"{each.request}: {each.why}" for each in left[:3]]
    more = [f"and {len(left) - 3} more"] if len(left) > 3 else []
    without = f"{counted(len(changing), 'operation')} may change something (--writes adds them)" if changing else ""
    unknown = any("no value is known for" in each.why for each in left)
    hint = ["--value NAME=VALUE gives a value to a parameter"] if unknown else []
    said = "; ".join([*reasons, *more, *([without] if without else []), *hint])
    return f"no operation of {api.title or 'the document'} can be requested: {said}"


class _Planner:
    """Finds for each operation how it can be requested, or why not."""

    def __init__(self, api: Api, references: References, choice: Choice, ask: Ask | None) -> None:
        self._api, self._references, self._choice, self._ask = api, references, choice, ask
        self._settled: dict[str, _Ready | LeftOut] = {}
        self._under_way: set[str] = set()
        self._variables: dict[str, tuple[str, str]] = {}
        self._by_path: dict[str, list[Operation]] = {}
        for operation in api.operations:
            self._by_path.setdefault(_plain_path(operation.path), []).append(operation)
        self.slowest_ms = 0.0

    def settle(self, operation: Operation) -> _Ready | LeftOut:
        """How an operation can be requested, or why it cannot."""
        label = operation.label
        if label not in self._settled:
            self._under_way.add(label)
            try:
                self._settled[label] = self._asked(self._bound(operation))
            except (NoSample, Unusable) as reason:
                self._settled[label] = LeftOut(label, str(reason))
            self._under_way.discard(label)
        return self._settled[label]

    def secrets(self, ready: Sequence[_Ready]) -> list[Secret]:
        """The headers with secrets that the operations need, each once."""
        found = {
            scheme.name.lower(): self._secret(scheme)
            for each in ready
            for scheme in each.operation.schemes
            if scheme.where in ("header", "cookie")
        }
        return list(found.values())

    def _secret(self, scheme: Scheme) -> Secret:
        value = scheme.template.format(_TEMPLATE % scheme.variable)
        is_set = bool(self._choice.environment.get(scheme.variable))
        if scheme.where == "cookie":
            return Secret("Cookie", f"{scheme.name}={value}", scheme.variable, is_set)
        return Secret(scheme.name, value, scheme.variable, is_set)

    def _bound(self, operation: Operation) -> _Ready:
        """The operation with a value for everything that it needs. Raises NoSample."""
        words = _NEXT_WORD.sub("-", re.sub(r"\{[^{}]*\}", "", operation.path)).lower()
        if operation.method == "get" and _ENDS_SOMETHING.search(words):
            raise NoSample("by its name it ends or changes something")
        if operation.streams:
            raise NoSample("its answer is a stream without an end")
        if "{{" in operation.path:
            raise NoSample("its path has {{ in it, which scripts read as a template")
        needs: list[_Need] = []
        guess = ""
        url = operation.prefix + operation.path
        by_name = {p.name: p for p in operation.parameters if p.where == "path"}
        for name in re.findall(r"\{([^{}]+)\}", operation.path):
            parameter = by_name.get(name) or Parameter(name, "path", required=True, schema={"type": "string"})
            value = self._path_value(operation, parameter)
            if isinstance(value, _Guess):
                value, guess = value.value, value.why
            if isinstance(value, _Need):
                needs.append(value)
                text = f"{{{{ {value.capture.variable} }}}}"
            else:
                text = path_text(name, value, parameter.style, explode=parameter.explode)
            url = url.replace(f"{{{name}}}", text)
        query = "&".join(self._query(operation))
        url = f"{url}{'&' if '?' in url else '?'}{query}" if query else url
        url = url if url.startswith("/") else f"/{url}"
        follow = not operation.statuses or operation.statuses[0] < 300
        return _Ready(
            operation, url, needs, self._headers(operation), self._body(operation), operation.statuses, follow, guess
        )

    def _query(self, operation: Operation) -> Iterator[str]:
        for parameter in operation.parameters:
            if parameter.where == "query" and (parameter.required or parameter.name in self._choice.values):
                value = self._literal(parameter)
                if value is None:
                    if _ID_LIKE.search(parameter.name):
                        raise NoSample(f"no value is known for the parameter {parameter.name}")
                    value = self._sampled(parameter)
                yield from query_pairs(parameter.name, value, parameter.style, explode=parameter.explode)
        for scheme in operation.schemes:
            if scheme.where == "query" and self._choice.environment.get(scheme.variable):
                yield f"{quote(scheme.name)}={_TEMPLATE % scheme.variable}"

    def _headers(self, operation: Operation) -> dict[str, str]:
        headers: dict[str, str] = {}
        secret = {scheme.name.lower() for scheme in operation.schemes}
        for parameter in operation.parameters:
            name = parameter.name.lower()
            if not parameter.required or name in secret or name in _NOT_AS_PARAMETERS:
                continue
            if parameter.where in ("header", "cookie"):
                value = self._literal(parameter)
                if value is None and (parameter.where == "cookie" or _ID_LIKE.search(name)):
                    raise NoSample(f"no value is known for the {parameter.where} {parameter.name}")
                text = as_text(self._sampled(parameter) if value is None else value)
                if parameter.where == "cookie":
                    headers["Cookie"] = f"{headers['Cookie']}; " if "Cookie" in headers else ""
                    headers["Cookie"] += f"{parameter.name}={text}"
                else:
                    headers[parameter.name] = text
        body = operation.body
        if body is not None and (body.key == "body" or (body.key == "json" and body.kind not in _USUAL_JSON)):
            headers["Content-Type"] = body.kind
        return headers

    def _body(self, operation: Operation) -> tuple[str, Any] | None:
        body = operation.body
        if body is None or (operation.method in ("get", "delete") and not body.required):
            return None
        if operation.method == "get":
            raise NoSample("a GET with a body")
        if not body.key:
            if body.required:
                raise NoSample(f"its body is {body.kind}")
            return None
        schema = self._references.resolve(body.schema)
        value = next((e for e in body.examples if "{{" not in repr(e) and fits(e, schema, self._references)), None)
        if value is None:
            if body.key == "body" and not body.kind.lower().startswith("text/plain"):
                raise NoSample(f"its body is {body.kind}, of which the document has no example")
            value = sample(body.schema, self._references)
        if body.key in ("form", "formData"):
            if not isinstance(value, dict):
                raise NoSample("its form has no fields")
            value = {name: as_text(f) if isinstance(f, (dict, list)) else f for name, f in value.items()}
        if body.key == "body":
            value = as_text(value)
        if "{{" in repr(value):
            raise NoSample("its body has {{ in it, which scripts read as a template")
        return body.key, value

    def _literal(self, parameter: Parameter) -> Any:
        """A value that the document itself names for a parameter; None where there is none."""
        schema = parameter.schema
        if parameter.name in self._choice.values:
            return self._choice.values[parameter.name]
        for value in (*parameter.examples, *declared(schema, self._references)):
            if "{{" not in repr(value) and value != "" and fits(value, schema, self._references):
                return value
        kind = type_of(schema)
        if kind == "array":
            items = self._references.resolve(schema.get("items"))
            first = next(declared(items, self._references), None)
            return None if first is None else [first]
        if kind == "boolean" or schema.get("format") in _KNOWN_FORMATS:
            return self._sampled(parameter)
        return None

    def _sampled(self, parameter: Parameter) -> Any:
        try:
            value = sample(parameter.schema, self._references)
            # An empty default stands for no default.
            return text_sample(parameter.schema) if value == "" else value
        except NoSample as reason:
            raise NoSample(f"no value is known for {parameter.name}: {reason}") from None

    def _path_value(self, operation: Operation, parameter: Parameter) -> Any:
        """A value for a parameter of the path, or the _Need that says where it comes from. Raises NoSample."""
        schema = parameter.schema
        if parameter.name in self._choice.values:
            return self._choice.values[parameter.name]
        literal = self._literal(parameter)
        closed = isinstance(schema.get("enum"), list) or "const" in schema or type_of(schema) == "boolean"
        if literal is not None and closed:
            return literal
        changes = operation.method in ("put", "patch", "delete")
        tried: list[str] = []
        for source, path in self._sources(operation, parameter):
            if source.label in self._under_way or (changes and source.method != "post"):
                continue
            found = self.settle(source)
            if isinstance(found, LeftOut):
                tried.append(f"{source.label} is left out, too")
                continue
            need = self._need(found, path, operation, parameter)
            if need is not None:
                return need
            empty = found.answer in ([], {}) or (isinstance(found.answer, dict) and [] in found.answer.values())
            tried.append(f"{source.label} {'answered an empty list' if empty else 'does not tell it'}")
        if changes:
            raise NoSample(f"it would change something that this script has not created ({parameter.name})")
        if literal is not None:
            return literal
        why = (
            f"no value is known for {parameter.name}: {tried[0] if tried else 'the document has no list that tells it'}"
        )
        if self._ask is not None and operation.method == "get" and (not tried or type_of(schema) == "integer"):
            # The service will say whether there is such an object.
            guess = self._sampled(parameter)
            if as_text(guess):
                return _Guess(guess, why)
        raise NoSample(why)

    def _sources(self, operation: Operation, parameter: Parameter) -> Iterator[tuple[Operation, str | None]]:
        """The operations whose answers may tell the parameter's value, the surest first, and the path in it where it is known."""
        methods = ("post", "get") if self._choice.writes else ("get",)
        name = parameter.name
        for method in methods:
            for other in self._api.operations:
                link = other.links.get(operation.operation_id, {}).get(name) if operation.operation_id else None
                if link is not None and other.method == method and (path := path_of_pointer(link)) is not None:
                    yield other, path
        before = operation.path.partition(f"{{{name}}}")[0]
        for method in methods:
            yield from ((each, None) for each in self._by_path.get(_plain_path(before), ()) if each.method == method)
        one = self._by_path.get(_plain_path(f"{before}{{{name}}}"), ())
        objects = {_reference(each.answer) for each in one if each.method == "get"} - {""}
        for other in self._api.operations:
            if other.method == "get" and objects & self._item_references(other):
                yield other, None
        for other in self._api.operations:
            if other.method == "get" and other.group == operation.group and f"{{{name}}}" not in other.path:
                shape = outline(other.answer, self._references)
                path = path_of(shape, name, type_of(parameter.schema), "", is_list=True, exact=True)
                if path is not None:
                    yield other, path

    def _item_references(self, operation: Operation) -> set[str]:
        """The references of the schemas of the items that an operation lists."""
        try:
            schema = self._references.resolve(operation.answer)
            lists = [schema, *map(self._references.resolve, (schema.get("properties") or {}).values())]
        except (Unusable, AttributeError):
            return set()
        return {_reference(each.get("items")) for each in lists} - {""}

    def _need(self, source: _Ready, path: str | None, operation: Operation, parameter: Parameter) -> _Need | None:
        """The value for the parameter in an answer of `source`; None where the answer has none."""
        collection = _collection(operation.path, parameter.name)
        kind = type_of(parameter.schema)
        asked = source.answer is not None
        answer = source.answer if asked else outline(source.operation.answer, self._references)
        if path is not None and asked and value_at(answer, path) is None:
            return None
        if path is None:
            path = path_of(answer, parameter.name, kind, collection, is_list=source.operation.method == "get")
        if path is None:
            return None
        capture = Capture(path, self._variable(source.operation, path, parameter.name, collection))
        if capture not in source.wanted:
            source.wanted.append(capture)
        return _Need(source, capture)

    def _variable(self, source: Operation, path: str, wanted: str, collection: str) -> str:
        """The variable for a value: named like the parameter, and like its collection where that name says too little."""
        name = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_") or "value"
        one = re.sub(r"\W+", "_", singular(collection), flags=re.ASCII).strip("_")
        new = "new_" if source.method == "post" else ""
        generic = name.lower() in ("id", "uuid", "guid", "key", "name", "slug", "code")
        short = f"{one}_{name}" if generic and one and (new or name in self._variables) else name
        key = (source.label, path)
        known = next((variable for variable, value in self._variables.items() if value == key), None)
        if known is not None:
            return known
        for number in range(1, 1000):
            variable = f"{new}{short}" + (f"_{number}" if number > 1 else "")
            if self._variables.setdefault(variable, key) == key:
                return variable
            if one and not short.startswith(one):
                short = f"{one}_{name}"
        raise NoSample(f"too many variables are called {name}")

    def _asked(self, ready: _Ready) -> _Ready:
        """The operation after the service was asked for it. Raises NoSample if the service does not answer it well."""
        values = {}
        for need in ready.needs:
            value = value_at(need.source.answer, need.capture.path)
            if value is None:
                return ready
            # As the run will send it: a template is not encoded, so a value with a slash is two parts of a path.
            values[f"{{{{ {need.capture.variable} }}}}"] = quote(as_text(value), safe=_SENT_AS_IS)
        if self._ask is None or ready.operation.method != "get":
            return ready
        url = ready.url
        for template, text in values.items():
            url = url.replace(template, text)
        headers = dict(ready.headers)
        missing = []
        for scheme in ready.operation.schemes:
            secret = self._choice.environment.get(scheme.variable, "")
            url = url.replace(_TEMPLATE % scheme.variable, quote(secret))
            if not secret:
                missing.append(scheme.variable or f"a secret for {scheme.name}")
            elif scheme.where in ("header", "cookie"):
                found = self._secret(scheme)
                headers[found.header] = found.template.replace(_TEMPLATE % scheme.variable, secret)
        asked = self._ask(url, headers)
        if asked is None:
            return ready
        if ready.guess and asked.status >= 400 and not missing:
            raise NoSample(ready.guess)
        self._judge(asked, missing)
        self.slowest_ms = max(self.slowest_ms, asked.ms)
        ready.answer, ready.expect, ready.follow = asked.body, (asked.status,), asked.status < 300
        return ready

    def _judge(self, asked: Asked, missing: Sequence[str]) -> None:
        if asked.error:
            raise NoSample(f"no answer ({asked.error})")
        if asked.status >= 400:
            needs = f": it needs {' and '.join(missing)}, which is not set" if missing else ""
            raise NoSample(f"answered {asked.status}{needs}")
        if asked.status >= 300 and _TO_LOGIN.search(asked.location):
            raise NoSample(f"answered {asked.status}, to {asked.location}: it needs a session")


def _plain_path(path: str) -> str:
    """A path without the slash or the file ending at its end, and without the names of its parameters."""
    return re.sub(r"\{[^{}]*\}", "{}", path).rstrip("/").removesuffix(".json")


def _reference(node: Any) -> str:
    return str(node.get("$ref") or "") if isinstance(node, dict) else ""


def _collection(path: str, parameter: str) -> str:
    """The word before a parameter in a path: `pets` for petId in `/pets/{petId}`."""
    words = [part for part in path.partition(f"{{{parameter}}}")[0].split("/") if part and "{" not in part]
    return words[-1] if words else ""


def _flows(ready: Sequence[_Ready]) -> list[Flow]:
    """Scenarios of at most a dozen steps or so, by group; each has the steps before it that its own steps need."""
    groups: dict[str, list[_Ready]] = {}
    for each in ready:
        groups.setdefault(each.operation.group, []).append(each)
    flows = []
    for name, members in groups.items():
        parts = [members[i : i + _STEPS_MAX] for i in range(0, len(members), _STEPS_MAX)]
        for number, part in enumerate(parts, 1):
            ordered: dict[str, _Ready] = {}
            for each in part:
                _with_needs(each, ordered)
            # What was created is deleted when nobody needs it any more, and what is part of it before it.
            steps = sorted(ordered.values(), key=_deletion)
            title = name or first_name(steps[0].operation.path)
            flows.append(Flow(f"{title} {number}" if len(parts) > 1 else title, _steps(steps)))
    return flows


def _deletion(ready: _Ready) -> int:
    """The place of an operation in its flow: 0 for all that delete nothing, which come first, then the longest paths."""
    return 0 if ready.operation.method != "delete" else 1000 - ready.operation.path.count("/")


def _with_needs(ready: _Ready, ordered: dict[str, _Ready]) -> None:
    for need in ready.needs:
        _with_needs(need.source, ordered)
    ordered.setdefault(ready.operation.label, ready)


def _steps(ready: Sequence[_Ready]) -> list[Step]:
    """The steps of one flow; each captures only what a later step of it needs."""
    needed = {need.capture for each in ready for need in each.needs}
    return [
        Step(
            each.operation.method,
            each.url,
            each.expect,
            each.headers,
            each.body,
            [capture for capture in each.wanted if capture in needed],
            [need.capture.variable for need in each.needs],
            each.follow,
            _THINK_S if number < len(ready) else 0.0,
        )
        for number, each in enumerate(ready, 1)
    ]
