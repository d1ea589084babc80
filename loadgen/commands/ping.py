"""The command `loadgen ping`: one request, how long each part of it took, and whether its answer is as expected."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from loadgen.language.limits import LimitExceeded
from loadgen.language.selectors import SelectorInvalid, compile_selector, parse_page
from loadgen.language.values import json_text, text
from loadgen.ping import Ping, PingFailed, send_ping
from loadgen.runner import agent, read_bytes
from loadgen.script.keys import METHODS
from loadgen.script.model import Expectation, ScriptErrors
from loadgen.script.parse import RunOptions, parse_script
from loadgen.script.yaml_reader import read_yaml
from loadgen.vu.expect import KINDS
from reports.blocks import Cell, Column, Facts, Items, Page, Section, Table, Text, amount, amount_cell, decimal
from reports.files import WriteError
from reports.writers.output import STYLES, put, style_of, written

_WORD = re.compile(r"([A-Za-z0-9_-]+)[=:]([A-Za-z0-9_-]+)")
_VERBS = (*METHODS, "connect", "trace")
_ENDINGS = (("json", "json"), ("html", "html"), ("xml", "xml"), ("text/", "txt"))
_NO_NAME = "ENOTFOUND"


@click.command()
@click.argument("words", nargs=-1, metavar="[METHOD] URL")
@click.option("-k", "--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option("-H", "--headers", multiple=True, metavar="'NAME: VALUE'", help="Header to send; may be repeated.")
@click.option("--auth", metavar="'{user: U, pass: P}'", help="User and password for basic authentication.")
@click.option("--qs", multiple=True, metavar="NAME=VALUE", help="Parameter of the URL; may be repeated.")
@click.option("--json", "json_body", metavar="VALUE", help="Body as JSON or YAML, sent as JSON.")
@click.option("--form", metavar="'{NAME: VALUE}'", help="Fields of a form, sent URL-encoded.")
@click.option("--body", help="Body, sent as it is.")
@click.option("--h1", is_flag=True, help="Force HTTP/1.1; this is always so.")
@click.option(
    "-e", "--expect", multiple=True, metavar="NAME=VALUE", help="Expectation, as in scripts; may be repeated."
)
@click.option("-b", "--showBody", "--show-body", "show_body", is_flag=True, help="Print the body of the answer.")
@click.option("-p", "--pretty", is_flag=True, help="Print the body, JSON with line breaks.")
@click.option("-v", "--verbose", is_flag=True, help="Print the request, too.")
@click.option("-q", "--query", help="JMESPath query of a JSON body, or selector in an HTML body.")
@click.option("--jmespath", help="Print only the result of this JMESPath query.")
@click.option("--cheerio", metavar="SELECTOR", help="Print what is inside the first element that this selector finds.")
@click.option("--format", "style", type=click.Choice(STYLES), help="Format of the result.")
@click.option("-o", "--output", type=click.Path(), help="Write the result to this file instead of stdout.")
@click.pass_context
def ping(
    context: click.Context,
    /,
    words: tuple[str, ...],
    insecure: bool,
    expect: tuple[str, ...],
    show_body: bool,
    pretty: bool,
    verbose: bool,
    query: str | None,
    jmespath: str | None,
    cheerio: str | None,
    style: str | None,
    output: str | None,
    h1: bool,  # noqa: ARG001 - HTTP/1.1 is what is spoken
    **request: Any,
) -> None:
    """Send one request, and show the answer and how long each part of it took.

    METHOD is GET unless it is given. A URL without a scheme begins with https://. The exit code is 1 if an expectation does
    not hold, or no answer came.
    """
    if not words:
        click.echo(context.get_help())
        return
    method, url = (words[0].lower(), words[1]) if words[0].lower() in _VERBS and len(words) > 1 else ("get", words[0])
    url = url if url.startswith(("http://", "https://")) else f"https://{url}"
    wanted = [_expectation(given) for given in expect]
    try:
        found = send_ping(_script(method, url, request, insecure=insecure), wanted, agent())
        chosen = style_of(style, output)
        if chosen != "text":
            result = written(_page(found), chosen)
        else:
            lines = _answered(found, jmespath, cheerio, query)
            if not jmespath:
                body = _body(found, show=show_body or pretty, pretty=pretty)
                lines = [*_shown(found, verbose=verbose), *body, *lines, *_checks(found)]
            result = "".join(f"{line}\n" for line in lines)
    except PingFailed as failed:
        _fail(f"{failed.name} - DNS lookup failed on {url}" if failed.name == _NO_NAME else f"{failed.name}: {url}")
    except LimitExceeded as beyond:
        _fail(f"{beyond.name}: {url}")
    try:
        put(result, output)
    except WriteError as error:
        _fail(str(error))
    sys.exit(int(found.failed))


def _fail(message: str) -> Any:
    """Print one line on stderr, and exit with 1 as Artillery does."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _given(option: str, given: str, example: str) -> dict[str, Any]:
    """The object that an option gives: `name=value`, `name:value`, JSON or YAML. Exits with 1 for anything else."""
    if word := _WORD.fullmatch(given):
        return {word[1]: word[2]}
    try:
        value = read_yaml(option, given).value
    except ScriptErrors as error:
        _fail(f"{option}: not JSON, YAML or NAME=VALUE: {error.problems[0].message} (for example {example})")
    if not isinstance(value, dict):
        _fail(f"{option}: must be an object or NAME=VALUE, not {given!r} (for example {example})")
    return dict(value)


def _merged(option: str, given: Sequence[str], example: str) -> dict[str, Any]:
    return {name: value for each in given for name, value in _given(option, each, example).items()}


def _expectation(given: str) -> Expectation:
    kind, value = next(iter(_given("--expect", given, "'{statusCode: 200}'").items()), ("", None))
    if kind not in KINDS:
        _fail(f"--expect: unknown expectation {kind!r}; there are {', '.join(KINDS)}")
    return Expectation(kind, value)


def _script(method: str, url: str, given: dict[str, Any], *, insecure: bool) -> Any:
    """The script of one user that makes this request. Exits with 1 where it cannot be made."""
    spec: dict[str, Any] = {"url": url}
    if given["auth"] is not None:
        spec["auth"] = _given("--auth", given["auth"], "'{user: tiki, pass: pony1}'")
    if given["json_body"] is not None:
        spec["json"] = _given("--json", given["json_body"], "'{name: Tiki}'")
    if given["form"] is not None:
        spec["form"] = _given("--form", given["form"], "'{name: tiki, type: pony}'")
    if given["headers"]:
        spec["headers"] = _merged("--headers", given["headers"], "'x-my-header: my-value'")
    if given["qs"]:
        spec["qs"] = _merged("--qs", given["qs"], "keyword=pony")
    if given["body"] is not None:
        spec["body"] = given["body"]
    source = json.dumps({"config": {"target": url}, "scenarios": [{"flow": [{method: spec}]}]})
    # Variables of the environment stay out: nothing that is typed here should be filled in.
    proxies = {name: os.environ[name] for name in ("HTTP_PROXY", "HTTPS_PROXY") if name in os.environ}
    try:
        return parse_script([("ping.json", source)], RunOptions(insecure=insecure, env=proxies), read_bytes)
    except ScriptErrors as errors:
        _fail("; ".join(problem.message for problem in errors.problems))


def _phase(value: float | None, width: int, absent: str = "0ms") -> str:
    """A time with its unit, as wide as its column."""
    return (absent if value is None else f"{decimal(value, 3)}ms" if value < 100 else f"{value:.0f}ms").ljust(width)


def _shown(found: Ping, *, verbose: bool) -> list[str]:
    """The lines on the connection, the answer's head, and the times, in Artillery's layout."""
    origin, exchange, times = found.origin, found.exchange, found.times
    usual = {"http": 80, "https": 443}[origin.scheme] == origin.port
    lines = [f"Connected to {origin.scheme}://{origin.host}{'' if usual else f':{origin.port}'} ({found.address})", ""]
    if verbose:
        head = found.sent.partition(b"\r\n\r\n")[0].decode("latin-1")
        lines += ["Request:", "", *head.splitlines(), "", "Response:", ""]
    status, *_ = exchange.head.decode("latin-1").splitlines()
    lines += [status, *(f"{name}: {text(value)}" for name, value in found.answer.headers.items()), "", ""]
    dns, tcp, tls = (each or 0.0 for each in (times.dns, times.tcp, times.tls))
    whole = [dns, dns + tcp, dns + tcp + tls, times.total - times.download, times.total]
    parts = (
        f"  {_phase(times.dns, 10)}|  {_phase(times.tcp, 14)}|     {_phase(times.tls, 10, 'N/A')}"
        f"|     {_phase(times.first_byte, 15)}|   {_phase(times.download, 13)} |"
    )
    bar = "            |                |               |                    |                 |"
    return [
        *lines,
        " DNS Lookup | TCP Connection | SSL Handshake | Time to First Byte | Content Transfer  ",
        parts,
        bar,
        f"            {_phase(whole[0], 8)}         |               |                    |                 |",
        f"                          {_phase(whole[1], 8)}           |                    |                 |",
        f"                                           {_phase(whole[2], 8)}               |                 |",
        f"                                                                {_phase(whole[3], 8)}            |",
        f"                                                                               total:{_phase(whole[4], 8)}",
        "",
    ]


def _body(found: Ping, *, show: bool, pretty: bool) -> list[str]:
    """Where the body is kept, and the body itself where it is to be shown."""
    content = found.answer.plain_body()
    if not content:
        return []
    kind = text(found.answer.headers.get("content-type", "application/octet-stream")).lower()
    ending = next((ending for part, ending in _ENDINGS if part in kind), "bin")
    with tempfile.NamedTemporaryFile(prefix="ping-", suffix=f".{ending}", delete=False) as file:
        file.write(content)
    lines = ["", f"Body stored in: {file.name}", ""]
    if not show:
        return lines
    if pretty and "json" in kind:
        try:
            return [*lines, json.dumps(found.answer.json, indent=4, ensure_ascii=False)]
        except ValueError:
            return [*lines, "Could not parse body as valid JSON for pretty-printing"]
    return [*lines, found.answer.text]


def _answered(found: Ping, jmespath: str | None, cheerio: str | None, query: str | None) -> list[str]:
    """The result of the query, a line; exits with 1 for a query that cannot be read."""
    kind = text(found.answer.headers.get("content-type", "")).lower()
    if jmespath or (query and "json" in kind):
        from loadgen.language.queries import QueryError, search

        try:
            body = found.answer.json
        except ValueError:
            body = found.answer.text
        try:
            result = search(str(jmespath or query), body)
        except QueryError as error:
            _fail(f"the JMESPath query cannot be read: {error}")
        return [json.dumps(result, indent=4, ensure_ascii=False) if sys.stdout.isatty() else json_text(result)]
    if cheerio or (query and ("html" in kind or "xml" in kind)):
        return [_inside(found.answer.text, str(cheerio or query))]
    if query:
        click.echo(f"Content-Type is not JSON or XML/HTML: {kind or 'none'}\nUnable to run a query", err=True)
    return []


def _inside(page: str, selector: str) -> str:
    """The HTML inside the first element that a selector finds; `null` without one."""
    from lxml import etree, html

    try:
        elements = compile_selector(selector)(parse_page(page))
    except SelectorInvalid as error:
        _fail(f"the selector cannot be read: {error}")
    except etree.ParserError:
        elements = []
    if not elements:
        return "null"
    inner = [elements[0].text or "", *(html.tostring(each, encoding="unicode") for each in elements[0])]
    return "".join(inner)


def _checks(found: Ping) -> list[str]:
    lines = ["Expectations:", ""] if found.checks else []
    for check in found.checks:
        lines.append(f"*  {'ok' if check.ok else 'not ok'} {check.kind} {text(check.got)} ")
        if not check.ok:
            lines += [f"   expected: {text(check.expected)}", f"        got: {text(check.got)}"]
    return lines


def _page(found: Ping) -> Page:
    """The result as blocks: what was answered, and when, as the title; then expectations, if there are any."""
    origin, times = found.origin, found.times
    url = f"{origin.scheme}://{origin.place}"
    status = found.exchange.status
    rows = (
        ("DNS lookup", times.dns),
        ("TCP connection", times.tcp),
        ("TLS handshake", times.tls),
        ("Time to first byte", times.first_byte),
        ("Content transfer", times.download),
        ("Total", times.total),
    )
    table = Table(
        "times",
        "Times",
        (Column("part"), Column("time (ms)", "number")),
        tuple((Cell(name), amount_cell(value)) for name, value in rows),
    )
    headers = tuple((name, text(value)) for name, value in found.answer.headers.items())
    answer = Section("answer", "Answer", (Facts("Headers", headers),), menu="Answer", data={
        "status": status, "headers": found.answer.headers, "body_bytes": found.exchange.body_bytes,
    })  # fmt: skip
    expected = Items(
        tuple(
            Text(
                f"{check.kind}: {text(check.got)}" + ("" if check.ok else f", expected {text(check.expected)}"),
                "good" if check.ok else "bad",
            )
            for check in found.checks
        )
    )
    checks = [{"kind": c.kind, "ok": c.ok, "expected": c.expected, "got": c.got} for c in found.checks]
    sections = (
        *([Section("expectations", "Expectations", (expected,), menu="Expectations")] if checks else ()),
        Section("times", "Times", (table,), menu="Times", data=asdict(times)),
        answer,
    )
    data = {
        "target": url,
        "address": found.address,
        "kernel_stamp": found.exchange.stamped,
        "expectations": checks,
    }
    method, path, _ = found.sent.decode("latin-1").split(" ", 2)
    address = f"{url}{path}" if path.startswith("/") else path
    title = f"HTTP {status} after {amount(times.total)} ms"
    return Page(title, f"{method} {address}, connected to {found.address}", sections, data)
