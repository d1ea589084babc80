"""Makes the draft of a script from a HAR file: the requests of the recorded host, in their order, with the recorded pauses.

Cookies and everything that looks like a secret stay out: the recording is somebody's session. A secret that the service
needs comes from an earlier answer of the recording where one has it, otherwise from an environment variable. Requests of a
session whose login had to be left out are left out, too. The format is HAR 1.2.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from email import message_from_string
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from loadgen.script_from.correlation import Correlation, tokens_of
from loadgen.script_from.draft import Draft, Flow, LeftOut, Secret, SecretNeeded, Step, Unusable, counted
from loadgen.script_from.openapi import environment_name

_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
_LONGEST_THINK_S = 10.0
_SHORTEST_THINK_S = 0.05
_SECRET = re.compile(
    r"auth(?!ors?(?![a-z]))|token|secret|passw|passcode|session|csrf|xsrf|(?:api|access|private|subscription|app)[-_]?key|signature|credential"
    r"|jwt|assertion|saml|hmac|card[-_]?(?:number|no\b)|(?:^|[^a-z])(?:sid|pwd|sig|otp|pin|cvv|cvc|ssn)(?:$|[^a-z])",
    re.IGNORECASE,
)
"""Names of headers, parameters and fields that hold secrets."""
_SECRET_VALUE = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|\b(?:sk|pk|rk)_(?:live|test)_\w{8,}|\bgh[opsru]_\w{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|\bA[KS]IA[A-Z0-9]{12,}|\bAIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""Secrets that are known by their form: JSON Web Tokens, and keys of well-known services."""
_KEY = re.compile(r"(?:.*[^a-z])?key|code|hash", re.IGNORECASE)
_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_.~+/=-]{20,}")
"""What a key looks like: where a name can mean a key or something harmless, such a value decides."""
_LEAST_LOGIN_CODE = 16
"""The shortest code, in characters, that is taken for the one of a login."""
_SECRET_NUMBER = re.compile(r"passw|passcode|card|(?:^|[^a-z])(?:pin|otp|cvv|cvc|ssn)(?:$|[^a-z])", re.IGNORECASE)
_DROPPED_SECRETS = re.compile(r"session|csrf|xsrf|\bsid\b|proxy-", re.IGNORECASE)
_LOGIN_SECRET = re.compile(r"passw|passcode|pwd|otp|pin\b", re.IGNORECASE)
_KEPT_HEADERS = ("accept", "x-requested-with", "content-type", "accept-language")
_SAME_SITE = {"origin": "{{ target }}", "referer": "{{ target }}/"}
_STATIC_FILE = re.compile(
    r"\.(?:avif|bmp|css|eot|gif|ico|jpe?g|js|m?js|map|mp[34]|og[gv]|otf|png|svg|ttf|wasm|webm|webp|woff2?)$",
    re.IGNORECASE,
)
_STATIC_KIND = re.compile(r"image/|font/|audio/|video/|text/css|.*javascript|.*font|application/wasm", re.IGNORECASE)
_JSON_KIND = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)
_FORM_KIND = "application/x-www-form-urlencoded"
_LARGEST = 1e15
_URL_SIGNS = "!#$%&'()*+,/:;=?@[]~{}|\\^`\"<>"
"""Signs that stay as they were recorded; what is neither among them nor a plain letter is percent-encoded."""
_TEMPLATE = "{{ $processEnvironment.%s }}"


def is_har(document: Any) -> bool:
    """Whether a value is a HAR file."""
    return isinstance(document, dict) and isinstance(document.get("log"), dict) and "entries" in document["log"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One recorded request."""

    method: str
    url: str
    path: str
    """With its query."""
    origin: str
    status: int
    started_s: float
    took_s: float
    kind: str
    page: str
    request: Mapping[str, Any]
    response: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.method.upper()} {self.path.partition('?')[0]}"

    @property
    def is_static(self) -> bool:
        return bool(_STATIC_FILE.search(self.path.partition("?")[0]) or _STATIC_KIND.match(self.kind))


def draft_from_har(
    document: dict[str, Any],
    source: str,
    *,
    target: str | None = None,
    static: bool = False,
    limit: int = 100,
    environment: Mapping[str, str] | None = None,
) -> Draft:
    """Make the draft. Raises Unusable for a file without requests that can be repeated."""
    log = document["log"]
    given = log["entries"] if isinstance(log["entries"], list) else []
    entries = sorted(_entries(given), key=lambda each: each.started_s)
    if not entries:
        raise Unusable(f"{source}: no HTTP request is recorded in it")
    origin = _recorded_origin(entries)
    own = [each for each in entries if each.origin == origin]
    notes = []
    others = Counter(each.origin for each in entries if each.origin != origin)
    if others:
        names = ", ".join(f"{name} ({n})" for name, n in others.most_common(3))
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.append(f"Not in this script: {counted(others.total(), 'request')} to other hosts: {names}{more}.")
    wanted = [each for each in own if static or not each.is_static]
    if len(wanted) < len(own):
        files = counted(len(own) - len(wanted), "static file")
        notes.append(f"Not in this script: {files} (images, styles, scripts, fonts); --static adds them.")
    answered = any(each.status for each in entries)
    if not answered:
        notes.append("The file has no answers, only requests: their statuses are not checked.")
    below = bool(target) and urlsplit(str(target)).path.strip("/") != ""
    replay = _Replay(environment or {}, answered=answered, target_has_path=below)
    steps, left = [], []
    kept: list[tuple[_Entry, Step]] = []
    sessions = _LostSessions(own, environment or {})
    for each in wanted:
        try:
            sessions.check(each)
            kept.append((each, replay.step(each, len(kept))))
        except Unusable as reason:
            left.append(LeftOut(_masked(each.label), str(reason)))
            if isinstance(reason, SecretNeeded):
                sessions.lose(each, reason.name)
    captures = replay.correlation.captures
    kept = [(entry, replace(step, captures=captures.get(number, ()))) for number, (entry, step) in enumerate(kept)]
    if not kept:
        why = f"{left[0].request}: {left[0].why}" if left else "they are static files; --static adds them"
        raise Unusable(f"{source}: no request to {origin} can be repeated: {why}")
    set_here = {name for entry, _ in kept for name in _cookies(entry.response)}
    if any(set(_cookies(entry.request)) - set_here for entry, _ in kept):
        notes.append("Not in this script: the recorded cookies. Where a login is needed, add the requests that log in.")
    if len(kept) > limit:
        notes.append(f"Not in this script: {counted(len(kept) - limit, 'request')} beyond --limit {limit}.")
    steps = _paced(kept[:limit], _titles(log))
    slowest_ms = max(entry.took_s for entry, _ in kept) * 1000
    title = f"a recording of {origin} (HAR)"
    flow = Flow("recorded session", steps)
    return Draft(title, (target or origin).rstrip("/"), [flow], left, replay.secrets(), slowest_ms, notes)


def _entries(given: Sequence[Any]) -> Iterator[_Entry]:
    """The recorded HTTP requests; what a browser made itself, and what is no HTTP, is passed over."""
    for each in given:
        request = each.get("request") if isinstance(each, dict) else None
        response = each.get("response") if isinstance(each, dict) else None
        if not isinstance(request, dict):
            continue
        # A file that somebody wrote by hand may have requests alone.
        response = response if isinstance(response, dict) else {}
        url, method = str(request.get("url") or ""), str(request.get("method") or "").lower()
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            continue
        preflight = method == "options" and "access-control-request-method" in _headers(request)
        if parts.scheme not in ("http", "https") or not parts.hostname or method not in _METHODS or preflight:
            continue
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        content = response.get("content")
        kind = str(content.get("mimeType") or "") if isinstance(content, dict) else ""
        yield _Entry(
            method,
            url,
            quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_URL_SIGNS),
            f"{parts.scheme}://{host}{port}",
            _whole(response.get("status")),
            _instant(each.get("startedDateTime")),
            max(_amount(each.get("time")), 0.0) / 1000,
            kind,
            str(each.get("pageref") or ""),
            request,
            response,
        )


def _recorded_origin(entries: Sequence[_Entry]) -> str:
    """The host that was recorded: that of the first page which came, else the one with the most requests."""
    page = next((each for each in entries if each.status == 200 and each.kind.startswith("text/html")), None)
    return page.origin if page else Counter(each.origin for each in entries).most_common(1)[0][0]


def _titles(log: Mapping[str, Any]) -> dict[str, str]:
    pages = log.get("pages")
    several = [page for page in pages if isinstance(page, dict)] if isinstance(pages, list) else []
    return {str(page.get("id")): str(page.get("title") or page.get("id")) for page in several}


def _paced(kept: Sequence[tuple[_Entry, Step]], titles: Mapping[str, str]) -> list[Step]:
    """The steps with the pauses between an answer and the next request, and with a comment where a page begins."""
    steps = []
    page = ""
    for number, (entry, step) in enumerate(kept):
        following = kept[number + 1][0] if number + 1 < len(kept) else None
        pause_s = following.started_s - entry.started_s - entry.took_s if following else 0.0
        think_s = round(min(pause_s, _LONGEST_THINK_S), 2) if pause_s >= _SHORTEST_THINK_S else 0.0
        title = titles.get(entry.page, entry.page) if entry.page != page else ""
        page = entry.page
        comment = f"Page: {_masked(_without_query(title))}" if title else ""
        steps.append(replace(step, think_s=think_s, comment=comment))
    return steps


def _masked(text: str) -> str:
    """A text for comments and messages, without what looks like a secret in it."""
    return _SECRET_VALUE.sub("(a secret)", text)


def _without_query(title: str) -> str:
    """A page's title, which is often its URL; the query may hold secrets."""
    return re.split(r"[?#]", title)[0] if "://" in title else title


class _LostSessions:
    """The sessions that requests begin which are left out for want of a secret, such as a login."""

    def __init__(self, entries: Sequence[_Entry], environment: Mapping[str, str]) -> None:
        self._by_cookie: dict[str, str] = {}
        self._by_token: dict[str, str] = {}
        self._environment = environment
        # Browsers can leave cookies out of a file. Then nothing says which requests belong to a session.
        self._without_cookies = not any(_cookies(each.request) or _cookies(each.response) for each in entries)
        self._setting = Counter(name for each in entries for name in set(_cookies(each.response)))
        """Number of answers that set a cookie, by its name."""
        self._all = ""

    def lose(self, entry: _Entry, secret: str) -> None:
        """A request is left out for want of a secret, and so is the session that its answer has begun.

        A login begins one with any cookie that it sets. Any other request does so only with a cookie that it did not send, and
        that no other answer sets: those of load balancers, for example, come with every answer.
        """
        is_login = _LOGIN_SECRET.search(secret) is not None
        begun = set(_cookies(entry.response))
        if not is_login:
            begun = {name for name in begun - set(_cookies(entry.request)) if self._setting[name] == 1}
        self._by_cookie.update(dict.fromkeys(begun, entry.label))
        self._by_token.update(dict.fromkeys(tokens_of(entry.response), entry.label))
        if self._without_cookies and is_login and not self._all:
            self._all = entry.label

    def check(self, entry: _Entry) -> None:
        """Raise Unusable for a request of a session that is lost."""
        lost = next((self._by_cookie[name] for name in _cookies(entry.request) if name in self._by_cookie), "")
        headers = _headers(entry.request)
        for name, value in headers.items():
            token = value.rpartition(" ")[2]
            # Answers have many texts that are no tokens, and a header such as Origin may have one of them.
            if (
                token in self._by_token
                and _is_secret(name, value)
                and not self._environment.get(environment_name(name))
            ):
                lost = self._by_token[token]
        lost = lost or ("" if "authorization" in headers else self._all)
        if lost:
            raise Unusable(f"it needs the session that {_masked(lost)} begins, which is left out")


def _cookies(message: Mapping[str, Any]) -> list[str]:
    """The names of the cookies that a request sent or that an answer set."""
    given = message.get("cookies")
    names = [name for name, _ in _pairs(given)]
    for name, value in _pairs(message.get("headers")):
        if name.lower() in ("cookie", "set-cookie"):
            # Several that an answer sets stand on lines of their own.
            several = value.split(";") if name.lower() == "cookie" else value.splitlines()
            names += [each.partition("=")[0].strip() for each in several]
    return names


class _Replay:
    """Turns recorded requests into steps, and collects the secrets that they need."""

    def __init__(self, environment: Mapping[str, str], *, answered: bool, target_has_path: bool) -> None:
        """`answered`: whether the recording has answers at all; a request without one has failed then."""
        self._environment = environment
        self._answered = answered
        self._secrets: dict[str, Secret] = {}
        self._target_has_path = target_has_path
        self.correlation = Correlation(target_has_path=target_has_path)

    def secrets(self) -> list[Secret]:
        """The headers with secrets that some request had."""
        return list(self._secrets.values())

    def step(self, entry: _Entry, number: int) -> Step:
        """The step for a recorded request, the `number`th from 0. Raises Unusable, which says why it is left out."""
        self.correlation.forget()
        step = replace(self._step(entry), needs=self.correlation.taken())
        self.correlation.learn(number, entry.method, entry.path, entry.response, entry.origin)
        return step

    def _step(self, entry: _Entry) -> Step:
        if not entry.status and self._answered:
            raise Unusable("it had no answer")
        if 0 < entry.status < 200:
            raise Unusable("it became another protocol, such as WebSocket")
        if entry.kind.startswith("text/event-stream"):
            raise Unusable("its answer is a stream without an end")
        # Without the headers that ask for a part, or whether something has changed, the answer is the whole document.
        status = 200 if entry.status in (206, 304) else entry.status
        if status >= 400:
            raise Unusable(f"it was answered with {status}")
        if "{{" in entry.path:
            raise Unusable("its URL has {{ in it, which scripts read as a template")
        if _SECRET_VALUE.search(entry.path.partition("?")[0]):
            raise Unusable("its path holds a secret")
        path, _, query = entry.path.partition("?")
        if _ends_login(query):
            raise Unusable("it ends a login, with a code that is valid only once")
        if query:
            parameters = "&".join(self._parameter(each) for each in query.split("&"))
            path = f"{path}?{parameters}"
        path = self.correlation.path(path)
        headers, body = self._headers_of(entry), self._body(entry)
        if body is not None and body[0] != "body":
            headers.pop("Content-Type", None)
        expect = (status,) if status else ()
        return Step(entry.method, path, expect, headers, body, follow_redirect=not 300 <= status < 400)

    def _parameter(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        known = self.correlation.value(name, unquote(value))
        if known is not None:
            return f"{name}={known}"
        if _is_secret(name, unquote(value)):
            return f"{name}={self._variable(name, unquote(value))}"
        return f"{name}{equals}{value}"

    def _variable(self, name: str, value: Any) -> str:
        """The template for a secret: from an earlier answer, or from the environment. Raises SecretNeeded if it is not set."""
        known = self.correlation.token(str(value))
        if known is not None:
            return known
        variable = environment_name(name) or "SECRET"
        # Nothing says what the value was: without the variable, the request is left out.
        if not self._environment.get(variable):
            raise SecretNeeded(f"it needs a secret ({name}): set {variable}, and make the script again", name)
        return _TEMPLATE % variable

    def _headers_of(self, entry: _Entry) -> dict[str, str]:
        """The headers that the service may look at; those of the browser, cookies and secrets stay out."""
        headers = {}
        for name, value in _headers(entry.request).items():
            if name.startswith(":") or "{{" in value or name == "cookie":
                continue
            if _is_secret(name, value):
                way, _, token = value.rpartition(" ")
                known = self.correlation.token(token)
                if known is not None:
                    headers[name.title()] = f"{way} {known}".strip()
                elif not _DROPPED_SECRETS.search(name):
                    self._add_secret(name, value)
                elif entry.method not in ("get", "head") and value in _cookie_values(entry.request):
                    raise SecretNeeded(f"its {name} repeats a cookie, which a script cannot read", name)
            elif (name in _KEPT_HEADERS or name.startswith("x-")) and value not in ("*/*", ""):
                headers[name.title()] = value
            elif self._is_own(entry, name, value):
                headers[name.title()] = _SAME_SITE[name]
        return headers

    def _is_own(self, entry: _Entry, name: str, value: str) -> bool:
        """Whether a header says that what is sent comes from a page of the same site: frameworks ask for that of forms."""
        is_sent = entry.method not in ("get", "head") and not self._target_has_path
        return name in _SAME_SITE and is_sent and f"{value}/".startswith(f"{entry.origin}/")

    def _add_secret(self, name: str, value: str) -> None:
        variable = environment_name(name)
        way = value.partition(" ")[0]
        template = (
            f"{way} {_TEMPLATE % variable}" if way.lower() in ("bearer", "basic", "token") else _TEMPLATE % variable
        )
        self._secrets.setdefault(name, Secret(name.title(), template, variable, bool(self._environment.get(variable))))

    def _body(self, entry: _Entry) -> tuple[str, Any] | None:
        """The body as a script sends it. Raises Unusable for one that cannot be sent."""
        data = entry.request.get("postData")
        if entry.method in ("get", "head"):
            return None
        if not isinstance(data, dict) or not (data.get("text") or data.get("params")):
            # Browsers leave out files, and what is large.
            sent = _headers(entry.request)
            kind, length = sent.get("content-type", ""), sent.get("content-length", "0")
            if kind.lower().startswith("multipart/") or length.strip() not in ("", "0"):
                raise Unusable("its body is not in the recording")
            return None
        kind = str(data.get("mimeType") or "").partition(";")[0].strip().lower()
        content = _text_of(data)
        if "{{" in content:
            raise Unusable("its body has {{ in it, which scripts read as a template")
        if kind.startswith("multipart/"):
            return "formData", self._without_secrets(_parts(data, content))
        if _JSON_KIND.fullmatch(kind):
            try:
                return "json", self._without_secrets(json.loads(content))
            except ValueError:
                pass
        if kind == _FORM_KIND:
            pairs = parse_qsl(content, keep_blank_values=True) or _pairs(data.get("params"))
            fields = dict(pairs)
            if len(fields) == len(pairs):
                return "form", self._without_secrets(fields)
            return "body", "&".join(
                f"{quote(name)}={self._variable(name, value) if _is_secret(name, value) else quote(value)}"
                for name, value in pairs
            )
        if _SECRET.search(content) or _SECRET_VALUE.search(content):
            raise Unusable("its body may hold a secret")
        return ("body", content) if content else None

    def _without_secrets(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._field(name, inner) for name, inner in value.items()}
        if isinstance(value, str) and _SECRET_VALUE.search(value):
            raise Unusable("its body holds a secret")
        return [self._without_secrets(each) for each in value] if isinstance(value, list) else value

    def _field(self, name: str, value: Any) -> Any:
        if _is_secret(name, value):
            return self._variable(name, value)
        known = self.correlation.value(name, value) if isinstance(value, (str, int)) else None
        return self._without_secrets(value) if known is None else known


def _ends_login(query: str) -> bool:
    """Whether a login server sends the browser back with this query (OAuth 2): `code` is long, or `state` looks random."""
    values = {name: unquote(value) for name, _, value in (each.partition("=") for each in query.split("&"))}
    if "code" not in values or "state" not in values:
        return False
    return len(values["code"]) >= _LEAST_LOGIN_CODE or _RANDOM.fullmatch(values["state"]) is not None


def _is_secret(name: str, value: Any) -> bool:
    """Whether the value of a header, a parameter or a field is a secret, by its name or by its form."""
    if isinstance(value, str) and value:
        key = _KEY.fullmatch(name) is not None and _RANDOM.fullmatch(value) is not None
        return key or _SECRET.search(name) is not None or _SECRET_VALUE.search(value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and _SECRET_NUMBER.search(name) is not None


def _text_of(data: Mapping[str, Any]) -> str:
    """The text of a body. Raises Unusable for a binary one."""
    text = str(data.get("text") or "")
    if data.get("encoding") == "base64":
        try:
            text = b64decode(text).decode()
        except ValueError:
            raise Unusable("its body is binary") from None
    if "\ufffd" in text or "\0" in text:
        raise Unusable("its body is binary")
    return text


def _parts(data: Mapping[str, Any], content: str) -> dict[str, str]:
    """The fields of a multipart form. Raises Unusable for one with files."""
    given = data.get("params")
    several = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    fields = [(each.get("name"), each.get("fileName"), str(each.get("value") or "")) for each in several]
    if not fields:
        message = message_from_string(f"Content-Type: {data.get('mimeType')}\r\n\r\n{content}")
        parts = message.get_payload()
        fields = [
            (part.get_param("name", header="content-disposition"), part.get_filename(), str(part.get_payload()))
            for part in (parts if isinstance(parts, list) else [])
            if isinstance(part, Message)
        ]
    if not fields or any(file or not isinstance(name, str) for name, file, _ in fields):
        raise Unusable("its body is a form with files")
    return {str(name): value for name, _, value in fields}


def _headers(request: Mapping[str, Any]) -> dict[str, str]:
    """Header fields by lower-case name."""
    given = request.get("headers")
    return {name.lower(): value for name, value in _pairs(given)}


def _cookie_values(request: Mapping[str, Any]) -> list[str]:
    sent = _headers(request).get("cookie", "")
    return [unquote(each.partition("=")[2].strip()) for each in sent.split(";")]


def _pairs(given: Any) -> list[tuple[str, str]]:
    several = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    return [(str(each.get("name")), str(each.get("value") or "")) for each in several]


def _instant(given: Any) -> float:
    """Seconds since the epoch of an ISO text; 0 for anything else."""
    try:
        return datetime.fromisoformat(str(given)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _amount(given: Any) -> float:
    return float(given) if isinstance(given, (int, float)) and abs(given) < _LARGEST else 0.0


def _whole(given: Any) -> int:
    return int(_amount(given))
