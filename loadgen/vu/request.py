"""Compiles a request step into what a virtual user does: send the request, follow its redirects, judge its answer.

A request that is the same for all users is turned into bytes before the first user starts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from copy import copy, deepcopy
from random import Random
from typing import Any
from uuid import uuid4

from loadgen.clock import now_ns
from loadgen.http.cookies import Jar
from loadgen.http.exchange import FILED, Exchange, Failure
from loadgen.http.message import Address, BadRequestError, Outgoing, redirected
from loadgen.http.route import Origin
from loadgen.language.expressions import compile_expression
from loadgen.language.limits import LimitExceeded
from loadgen.language.template import compile_template
from loadgen.language.values import text, truthy
from loadgen.recorder import NO_ENDPOINT
from loadgen.script import model
from loadgen.script.durations import LONGEST_S
from loadgen.script.processor import Request
from loadgen.vu.draft import Draft, complaint, editable, edited
from loadgen.vu.outcome import Judge
from loadgen.vu.vu import Action, Setting, Vu, VuFailedError
from reports import names

REDIRECTS_MAX = 10
_REDIRECTS = frozenset((300, 301, 302, 303, 304, 307, 308))
_INVALID_COOKIE = "cookie_parse_error_invalid_cookie"
_NOWHERE = Address(Origin("http", "", 0), "/", "")


def compile_request(spec: model.RequestStep, setting: Setting) -> Action:
    """Compile a request step into its action."""
    action = _RequestBuilder(spec, setting).action()
    if spec.if_true is not None:
        action = _only_if(spec.if_true, action, setting)
    if spec.probability is not None:
        action = _perhaps(spec.probability, setting.rng, action)
    return action


def _only_if(condition: str, action: Action, setting: Setting) -> Action:
    if setting.script.processor is not None and condition in setting.script.processor.functions:
        asked = setting.function(condition)
        return lambda vu: action(vu) if asked(vu) else None
    holds = compile_expression(condition)

    def act(vu: Vu) -> None:
        try:
            wanted = truthy(holds(vu.variables))
        except LimitExceeded as exceeded:
            raise VuFailedError(exceeded.name) from None
        except (re.error, ArithmeticError):
            # An expression that cannot be evaluated counts as true.
            wanted = True
        if wanted:
            action(vu)

    return act


def _perhaps(percent: float, rng: Random, action: Action) -> Action:
    def act(vu: Vu) -> None:
        if rng.random() * 100 < percent:
            action(vu)

    return act


class _RequestBuilder:
    """Compiles one request step; and what its action does in the rarer cases."""

    def __init__(self, spec: model.RequestStep, setting: Setting) -> None:
        self._spec = spec
        self._setting = setting
        self.draft = Draft(spec, setting)
        self._before = [setting.hook(name) for name in spec.before]
        self.judge = Judge(spec, self.draft.url, setting)
        self._recorder = setting.recorder
        self._rows = setting.rows
        self._file = setting.recorder.answers()
        self.cookies = compile_template({**setting.script.http.cookies, **spec.cookies}, setting.calls)
        self.follows = spec.follow_redirect
        self.response_ns = 0

    def action(self) -> Action:
        """The quickest action that does what the step says."""
        if self._before:
            return self._hooked
        outgoing = None if self.cookies.value else self.draft.constant()
        return self.send if outgoing is None else self._static(outgoing)

    def _static(self, outgoing: Outgoing) -> Action:
        """The action of a request that is always the same. Most are, so it does as little as it can."""
        data = outgoing.encoded()
        origin = outgoing.address.origin
        is_head, want_body = outgoing.method == "HEAD", self.judge.want_body
        created = self._recorder.request
        judged = self.judge.busy()
        endpoint = None if judged else self.judge.endpoint(self.judge.endpoint_name(outgoing, {}))
        file = self._recorder.answers(NO_ENDPOINT if endpoint is None else endpoint)

        def act(vu: Vu) -> None:
            if vu.cookies_on:
                self._exchange(vu, outgoing)
                return
            created(now_ns())
            exchange = vu.exchange
            result = exchange(origin, data, is_head, want_body, file, vu.intended_ns, judged)
            vu.intended_ns = 0
            if result is not FILED:
                self._finish(vu, outgoing, result)

        rows, method, url = self._rows, outgoing.method, outgoing.address.url
        if rows is None:
            return act

        def act_and_note(vu: Vu) -> None:
            if vu.cookies_on:
                self._exchange(vu, outgoing)
                return
            created(now_ns())
            result = vu.exchange(origin, data, is_head, want_body, file, vu.intended_ns, True)
            rows.add(vu.scenario, self.judge.name(vu.variables), method, url, vu.intended_ns, result)
            vu.intended_ns = 0
            if judged or isinstance(result, Failure) or not result.facts.plain:
                self._finish(vu, outgoing, result)

        return act_and_note

    def _hooked(self, vu: Vu) -> None:
        """Call the `beforeRequest` functions, and send the request as they left it."""
        given = editable(self._spec)
        request = deepcopy(given)
        request.id = f"{uuid4()}"
        for name, call in zip(self._spec.before, self._before, strict=True):
            call(request, vu)
            if said := complaint(request):
                self._setting.warn(f"{name}: {said}")
                raise VuFailedError(said)
        step = self if request == given else self._changed(request)
        step.send(vu, request.id)

    def _changed(self, request: Request) -> _RequestBuilder:
        """This step with a request that functions have changed."""
        spec, setting = edited(self._spec, request), self._setting
        step = copy(self)
        step.draft = Draft(spec, setting)
        if spec.name != self._spec.name:
            step.judge = Judge(spec, self.draft.url, setting)
        if spec.cookies != self._spec.cookies:
            step.cookies = compile_template({**setting.script.http.cookies, **spec.cookies}, setting.calls)
        step.follows = truthy(spec.follow_redirect)
        step.response_ns = 0 if request.timeout_s is None else max(1, int(min(request.timeout_s, LONGEST_S) * 1e9))
        return step

    def send(self, vu: Vu, request_id: str = "") -> None:
        """Fill in the templates of the request, and send it. `request_id` is the id that functions before it were given."""
        draft = self.draft
        url = draft.asked(vu.variables)
        if not url.startswith("http"):
            raise VuFailedError(f"Invalid URL - {url}")
        try:
            outgoing = draft.build(vu.variables, url)
        except BadRequestError as error:
            unsent = Outgoing(url, draft.method, _NOWHERE, [])
            raise self.judge.error(vu, error.name, unsent, error.name) from None
        outgoing.id, outgoing.response_ns = request_id, self.response_ns
        cookies = self.cookies.render(vu.variables)
        if cookies:
            self._put_cookies(vu, cookies, outgoing.address)
        self._exchange(vu, outgoing, with_jar=bool(cookies))

    def _put_cookies(self, vu: Vu, cookies: Mapping[str, Any], address: Address) -> None:
        vu.jar = vu.jar or self._jar()
        for name, value in cookies.items():
            if not vu.jar.store(f"{name}={text(value)}", address.origin.host, address.target, time.time()):
                raise VuFailedError("Cookie failed to parse")

    def _exchange(self, vu: Vu, outgoing: Outgoing, hop: int = 0, *, with_jar: bool = False) -> None:
        """Send a request, and do what follows from its answer. `hop` is the number of redirects before it."""
        cookie, address = "", outgoing.address
        if vu.jar is not None and (vu.cookies_on or with_jar):
            secure = address.origin.scheme == "https"
            cookie = vu.jar.header(address.origin.host, address.target, time.time(), secure=secure)
        try:
            data = outgoing.encoded(cookie)
        except UnicodeEncodeError:
            raise VuFailedError("ERR_INVALID_CHAR") from None
        self._recorder.request(now_ns())
        is_head = outgoing.method == "HEAD"
        result = vu.exchange(
            address.origin,
            data,
            is_head,
            self.judge.want_body,
            self._file,
            vu.intended_ns,
            response_ns=outgoing.response_ns,
        )
        if self._rows is not None:
            name = self.judge.name(vu.variables)
            self._rows.add(vu.scenario, name, outgoing.method, address.url, vu.intended_ns, result)
        vu.intended_ns = 0
        self._finish(vu, outgoing, result, hop, with_jar=with_jar)

    def _finish(
        self, vu: Vu, outgoing: Outgoing, result: Exchange | Failure, hop: int = 0, *, with_jar: bool = False
    ) -> None:
        """Do what follows from an exchange: keep its cookies, follow its redirect or judge it. Raises VuFailedError."""
        if isinstance(result, Failure):
            raise self.judge.failed(vu, result, outgoing)
        self._keep_cookies(vu, result, outgoing.address)
        location = result.header("location") if result.status in _REDIRECTS and self.follows else None
        if not location:
            self.judge.final(vu, outgoing, result)
            return
        self.judge.extended(outgoing, result)
        if hop == REDIRECTS_MAX:
            raise self.judge.error(vu, "ERR_TOO_MANY_REDIRECTS", outgoing, "Redirected 10 times. Aborting.")
        try:
            address = redirected(outgoing.address, location)
        except BadRequestError as error:
            raise self.judge.error(vu, error.name, outgoing, "Invalid URL") from None
        self._exchange(vu, outgoing.followed(address, result.status), hop + 1, with_jar=with_jar)

    def _keep_cookies(self, vu: Vu, result: Exchange, address: Address) -> None:
        if not result.facts.sets_cookie:
            return
        # As in Artillery, invalid cookies are counted in the answer that brings a user its first ones.
        first = not vu.cookies_on
        vu.cookies_on = True
        jar = vu.jar = vu.jar or self._jar()
        dropped = jar.dropped
        for name, value in result.headers():
            if name.lower() == "set-cookie":
                stored = jar.store(value, address.origin.host, address.target, time.time())
                if first and not stored:
                    self._recorder.count(names.ERRORS + _INVALID_COOKIE)
        if jar.dropped > dropped:
            self._recorder.count(names.DROPPED_COOKIES, jar.dropped - dropped)

    def _jar(self) -> Jar:
        return Jar(loose=self._setting.script.http.loose_cookies)
