"""What follows from a request's final answer or failure: captures, hooks, expectations, and metrics of plugins.

The names of metrics and errors, and the order of events, are Artillery's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from loadgen.http.exchange import Exchange, Failure
from loadgen.http.message import Outgoing
from loadgen.http.route import Origin
from loadgen.language.limits import LimitExceeded
from loadgen.language.template import Template, compile_template
from loadgen.language.values import UNDEFINED, json_text, number_text, text
from loadgen.recorder import NO_ENDPOINT
from loadgen.script import model
from loadgen.script.processor import Request, Response, Timings
from loadgen.vu.answer import Answer
from loadgen.vu.expect import Exchanged, compile_expectations, console_text
from loadgen.vu.vu import Setting, Vu, VuFailedError
from reports import names

_TOTAL = re.compile(r"total;dur=([0-9.]+)", re.IGNORECASE)
_AUTHORITY = re.compile(
    r"""https?://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^\s"%';<>\\^`{|}\#/?:]*)(?::(?P<port>\d*))?""", re.IGNORECASE
)
_NEVER_PLAIN = re.compile(r"""[\s"'<>`{}|\\^]""")


class Judge:
    """Judges the answers and failures of one request step. `url` is the step's URL as the script has it."""

    def __init__(self, spec: model.RequestStep, url: Template, setting: Setting) -> None:
        script, calls = setting.script, setting.calls
        self._spec = spec
        self._url = url
        self._setting = setting
        self._http = script.http
        self._recorder = setting.recorder
        self._named = compile_template(spec.name, calls)
        self._captures = None
        if spec.captures:
            # Most scripts capture nothing, and start quicker without the languages that captures are written in.
            from loadgen.vu.capture import compile_captures  # noqa: PLC0415

            self._captures = compile_captures(
                spec.captures,
                calls,
                setting.rng,
                strict_default=self._http.strict_capture,
                functions={
                    c.expression: setting.function(c.expression) for c in spec.captures if c.source == "function"
                },
            )
        self._after = [setting.hook(name) for name in spec.after]
        self._expectations = None
        if script.expect is not None:
            self._expectations = compile_expectations(spec.expectations, script.expect, calls)
        self._looks = self._captures is not None or self._expectations is not None or bool(self._after)
        # A header can be captured from an answer of any size.
        self.want_body = self._looks and not (
            self._expectations is None and not self._after and all(c.source == "header" for c in spec.captures)
        )
        self._metrics = script.endpoint_metrics
        self._endpoints: dict[str, int] = {}
        self._grouped = self._grouped_name()
        """The name of the endpoint if it is the same for all users; else None."""

    def busy(self) -> bool:
        """Whether a final answer needs more than to be counted for its endpoint."""
        script = self._setting.script
        return bool(
            self._looks or self._http.extended_metrics or script.apdex_threshold_ms is not None or self._grouped is None
        )

    def final(self, vu: Vu, outgoing: Outgoing, result: Exchange) -> None:
        """Judge the final answer: captures, hooks, expectations, apdex, the endpoint's metrics.

        Raises VuFailedError for an expectation that counts as an error, and at the end for a failed capture.
        """
        self.extended(outgoing, result)
        captured = True
        if self._looks:
            try:
                captured = self._look_into(vu, outgoing, result)
            except LimitExceeded as exceeded:
                raise self.error(vu, exceeded.name, outgoing, exceeded.name) from None
        self._apdex(result)
        name = self.endpoint_name(outgoing, vu.variables)
        endpoint = self.endpoint(name)
        if endpoint is not None:
            self._recorder.endpoint_answer(endpoint, result)
            self._server_timing(name, result)
        if not captured:
            raise VuFailedError("Failed capture or match")

    def _look_into(self, vu: Vu, outgoing: Outgoing, result: Exchange) -> bool:
        """Apply captures, hooks and expectations. Returns whether the captures succeeded. Raises VuFailedError, LimitExceeded."""
        answer = Answer(
            result.status,
            result.head,
            result.body,
            decode=self._spec.gzip,
            too_large=result.too_large,
            largest_bytes=self._http.max_body_bytes,
            timings=_timings(result) if self._setting.script.processor is not None else None,
        )
        captured = self._captures is None or self._captures(answer, vu.variables, vu)
        self._call_after(vu, outgoing, answer)
        if self._expectations is not None:
            self._expect(vu, outgoing, answer)
        return captured

    def _call_after(self, vu: Vu, outgoing: Outgoing, answer: Answer) -> None:
        if not self._after:
            return
        fields = dict(outgoing.fields)
        request = Request(
            outgoing.method,
            outgoing.address.url,
            fields,
            body=outgoing.body,
            name=self.name(vu.variables),
            id=outgoing.id or f"{uuid4()}",
        )
        response = Response(answer.status, answer.headers, answer.text, answer.plain_body(), answer.timings)
        for call in self._after:
            call(request, response, vu)

    def _expect(self, vu: Vu, outgoing: Outgoing, answer: Answer) -> None:
        plugin = self._setting.script.expect
        if plugin is None or self._expectations is None:
            return
        results, messages = self._expectations(answer, vu.variables)
        for message in messages:
            self._setting.write_line(message)
        for result in results:
            verdict = names.EXPECT_OK if result.ok else names.EXPECT_FAILED
            self._recorder.count(verdict)
            self._recorder.count(f"{verdict}.{result.kind}")
        name = self.name(vu.variables)
        sent = next((b.value for b in self._spec.bodies if isinstance(b, model.JsonBody)), None)
        exchanged = Exchanged(
            self._spec.method,
            outgoing.asked,
            _asked_path(outgoing.asked),
            name,
            compile_template(sent, self._setting.calls).render(vu.variables),
            answer,
            vu.variables,
        )
        shown = console_text(results, exchanged, plugin.output)
        if shown:
            self._setting.write_line(shown)
        if all(result.ok for result in results):
            return
        self._setting.expectation_failed()
        if plugin.failures_are_errors:
            said = name if plugin.only_request_names and name else outgoing.asked
            raise VuFailedError(f"Failed expectations for request {said}")

    def name(self, variables: Mapping[str, Any]) -> str | None:
        """The name that the script gives the request; None where it gives none."""
        name = self._named.render(variables)
        return None if name is None or name is UNDEFINED else text(name)

    def _apdex(self, result: Exchange) -> None:
        threshold_ms = self._setting.script.apdex_threshold_ms
        if threshold_ms is None:
            return
        total_ms = (result.last_byte_ns - result.started_ns) / 1e6
        reached = 0 if total_ms <= threshold_ms else (1 if total_ms <= 4 * threshold_ms else 2)
        for i, name in enumerate(names.APDEX):
            self._recorder.count(name, int(i == reached))

    def extended(self, outgoing: Outgoing, result: Exchange) -> None:
        """Record the times of connecting and of the whole exchange if the script wants them; each redirect has its own."""
        if not self._http.extended_metrics:
            return
        dns_ns, tcp_ns, tls_ns = result.setup_ns
        self._recorder.sample(names.DNS_TIME, dns_ns / 1e6)
        self._recorder.sample(names.TCP_TIME, tcp_ns / 1e6)
        if outgoing.address.origin.scheme == "https":
            self._recorder.sample(names.TLS_TIME, tls_ns / 1e6)
        self._recorder.sample(names.TOTAL_TIME, (result.last_byte_ns - result.started_ns) / 1e6)

    def _server_timing(self, name: str, result: Exchange) -> None:
        value = result.header("server-timing") if result.facts.server_timing else None
        if value is not None:
            # Artillery's plugin looks for one entry, called total, and files -1 where it is missing.
            total = _TOTAL.search(value)
            try:
                total_ms = float(total[1]) if total else -1.0
            except ValueError:
                # The pattern also takes what has several decimal points, or nothing else.
                total_ms = -1.0
            self._recorder.sample(f"{self._metrics.namespace}{names.SERVER_TIMING}{name}", total_ms)

    def _grouped_name(self) -> str | None:
        if not self._metrics.group_dynamic_urls and not (self._url.constant and self._named.constant):
            return None
        return self._name_of(text(self._url.value), self._named.value)

    def _name_of(self, url: str, name: Any) -> str:
        shown = named_endpoint(self._setting.script.target, url, strip_query=self._metrics.strip_query)
        if not name:
            return "" if self._metrics.ignore_unnamed else shown
        return text(name) if self._metrics.only_request_names else f"{shown} ({text(name)})"

    def endpoint_name(self, outgoing: Outgoing, variables: Mapping[str, Any]) -> str:
        """The name of the request's endpoint in the metrics; empty if it is not to be counted."""
        return self._name_of(outgoing.asked, self.name(variables)) if self._grouped is None else self._grouped

    def endpoint(self, name: str) -> int | None:
        """The recorder's number of an endpoint; None for an empty name."""
        if not name:
            return None
        number = self._endpoints.get(name)
        if number is None:
            number = self._recorder.endpoint(name, self._metrics.namespace)
            if number != NO_ENDPOINT:
                self._endpoints[name] = number
        return number

    def failed(self, vu: Vu, failure: Failure, outgoing: Outgoing) -> VuFailedError:
        """The error that ends a virtual user whose request got no whole answer."""
        return self.error(vu, failure.name, outgoing, self._said(failure, outgoing.address.origin))

    def _said(self, failure: Failure, origin: Origin) -> str:
        """The message of a failure in Node.js."""
        if failure.name in {"ENOTFOUND", "EAI_AGAIN"}:
            return f"getaddrinfo {failure.name} {origin.host}"
        if failure.stage == "connect":
            return f"connect {failure.name} {origin.host}:{origin.port}"
        if failure.name == "ETIMEDOUT":
            return f"Timeout awaiting 'response' for {number_text(self._http.timeout_s * 1000)}ms"
        return "socket hang up" if failure.name == "ECONNRESET" else failure.name

    def error(self, vu: Vu, name: str, outgoing: Outgoing, said: str) -> VuFailedError:
        """Tell the plugins that the request failed. Returns the error that ends its user."""
        endpoint = self.endpoint_name(outgoing, vu.variables)
        if endpoint:
            self._recorder.count(f"{self._metrics.namespace}.{endpoint}.{names.ERRORS}{name}")
        plugin = self._setting.script.expect
        if plugin is not None:
            line = json_text({"ok": False, "error": said}) if plugin.output == "json" else f"Error: {said}"
            self._setting.write_line(line)
        return VuFailedError(name)


def _timings(result: Exchange) -> Timings:
    dns_ns, tcp_ns, tls_ns = (0, 0, 0) if result.reused else result.setup_ns
    return Timings(
        dns_ns / 1e6,
        tcp_ns / 1e6,
        tls_ns / 1e6,
        (result.first_byte_ns - result.written_ns) / 1e6,
        (result.last_byte_ns - result.first_byte_ns) / 1e6,
        (result.last_byte_ns - result.started_ns) / 1e6,
    )


def _asked_path(url: str) -> str:
    """Path and query of a URL as `url.parse` of Node.js shows them: only characters that no URL may have are encoded."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _NEVER_PLAIN.sub(lambda match: quote(match.group()), path)


def named_endpoint(target: str, url: str, *, strip_query: bool) -> str:
    """A URL as the endpoint metrics name it: host and port if they differ from the target's, then the decoded path.

    The URL may hold templates. As in `url.parse` of Node.js, the host ends before a character that no host may have.
    """
    here, there = _AUTHORITY.match(target), _AUTHORITY.match(url)
    host, port = (there["host"].lower(), there["port"]) if there else ("", "")
    name = host if not here or host != here["host"].lower() else ""
    if port and not (here and port == here["port"]):
        name += f":{port}"
    rest = (url[there.end() :] if there else url).partition("#")[0]
    path, mark, query = rest.partition("?")
    return name + unquote((path or "/") + ("" if strip_query else mark + query))
