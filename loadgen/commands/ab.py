"""The command `loadgen ab`: a closed workload like ApacheBench's, and ApacheBench's report."""

from __future__ import annotations

import socket
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from ssl import TLSVersion
from typing import Any
from urllib.parse import urlsplit

import click

from loadgen.calibration import Calibration
from loadgen.closed import Workload
from loadgen.commands.exits import COULD_NOT_RUN, SIGNALLED, calibrate_for, calibration_option, warn, write_json
from loadgen.commands.outlet import outliving_the_terminal
from loadgen.environment import version
from loadgen.http.exchange import Exchange
from loadgen.http.route import Origin
from loadgen.http.tls import TlsSettings
from loadgen.http.tls_socket import client_context
from loadgen.runner import ClosedResult, agent, run_ab
from loadgen.script.durations import LONGEST_S
from reports.cli import BadInput, FiniteRange
from reports.files import WriteError, check_writable, read_bytes
from reports.formats.apachebench import AbReport, gnuplot_table, opening_text, percentiles_csv, to_text
from reports.printable import printable, shown_url, url_fault

_LARGEST_BODY = 1_000_000_000
_USUAL_PER_S = 4000
"""Requests a second that are taken for granted, to tell how long a run of a number of requests will be."""
_TOLD_ABOVE = 150
"""ab tells progress on runs of more requests than this."""
_SHOWN_BYTES = 8191
"""How much of an answer ab prints with -v."""
_MOST_BUFFER_BYTES = 2**30
_SECONDS = FiniteRange(0, LONGEST_S, min_open=True)
_PROTOCOLS = {
    "ALL": None,
    "TLS1": TLSVersion.TLSv1,
    "TLS1.1": TLSVersion.TLSv1_1,
    "TLS1.2": TLSVersion.TLSv1_2,
    "TLS1.3": TLSVersion.TLSv1_3,
}


def _refuse_html(_: click.Context, option: click.Parameter, value: Any) -> None:
    """Refuse one of ab's options for HTML. Raises BadInput."""
    if value:
        raise BadInput(f"{option.opts[0]}: no HTML tables are printed; `-o FILE` and `loadgen report` make a page")


@click.command()
@click.argument("url")
@click.option(
    "-n", "requests", type=click.IntRange(min=1), help="Number of requests in all (default: 1, or 50000 with -t)."
)
@click.option(
    "-c",
    "concurrency",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of users that send requests at the same time.",
)
@click.option("-t", "duration_s", type=_SECONDS, help="Stop after this number of seconds.")
@click.option(
    "-s",
    "timeout_s",
    type=_SECONDS,
    default=30,
    show_default=True,
    help="Seconds to wait for an answer.",
)
@click.option("-k", "keep_alive", is_flag=True, help="Keep connections open for further requests.")
@click.option("-m", "method", help="HTTP method of the requests (default: GET, or POST with -p).")
@click.option(
    "-H", "headers", multiple=True, metavar="'NAME: VALUE'", help="Header to add; may be given several times."
)
@click.option("-p", "body_file", type=click.Path(), help="File whose bytes are sent as the body.")
@click.option("-T", "content_type", default="text/plain", show_default=True, help="Content type of the body.")
@click.option("-u", "put_file", type=click.Path(), help="File whose bytes are sent as the body of a PUT.")
@click.option("-i", "head", is_flag=True, help="Send HEAD requests.")
@click.option(
    "-l", "any_length", is_flag=True, help="Let answers differ in length: such answers do not count as failed."
)
@click.option("-C", "cookies", multiple=True, metavar="NAME=VALUE", help="Cookie to send; may be given several times.")
@click.option(
    "-A", "credentials", metavar="USER:PASSWORD", help="User and password for the server (basic authentication)."
)
@click.option("-P", "proxy_credentials", metavar="USER:PASSWORD", help="User and password for the proxy.")
@click.option("-X", "proxy", metavar="HOST[:PORT]", help="HTTP proxy to send the requests to (default port: 80).")
@click.option("-e", "csv_file", type=click.Path(), help="Write the percentiles to this file, as CSV.")
@click.option(
    "-g", "gnuplot_file", type=click.Path(), help="Write the times of every request to this file, for gnuplot."
)
@click.option("-d", "no_percentiles", is_flag=True, help="Do not print the table of percentiles.")
@click.option(
    "-S", "no_deviations", is_flag=True, help="Do not print medians, standard deviations and warnings about them."
)
@click.option("-b", "buffer_bytes", type=click.IntRange(min=1), help="Size of the sockets' buffers, in bytes.")
@click.option("-B", "source", metavar="ADDRESS", help="Address of this machine to send from.")
@click.option("-f", "protocol", type=click.Choice(tuple(_PROTOCOLS), case_sensitive=False), help="Version of TLS.")
@click.option("-Z", "ciphers", metavar="LIST", help="Ciphers to offer, as `openssl ciphers` lists them.")
@click.option("-I", "nameless", is_flag=True, help="Do not tell the server the name it is asked by (SNI).")
@click.option("-E", "certificate", type=click.Path(), help="File with the client's certificate and its key, in PEM.")
@click.option("-w", expose_value=False, is_flag=True, hidden=True, callback=_refuse_html)
@click.option("-x", expose_value=False, hidden=True, callback=_refuse_html)
@click.option("-y", expose_value=False, hidden=True, callback=_refuse_html)
@click.option("-z", expose_value=False, hidden=True, callback=_refuse_html)
@click.option("-r", "go_on", is_flag=True, help="Go on after errors of sockets; this is always so.")
@click.option(
    "-v",
    "verbosity",
    type=int,
    default=0,
    help="2: print the request, each answer and a warning about each status other than 2xx; 3: print each status.",
)
@click.version_option(
    None, "-V", package_name="poolbench", message="loadgen %(version)s, reporting as ApacheBench, Version 2.3"
)
@click.option("-q", "quiet", is_flag=True, help="Show no progress on stderr.")
@click.option("-o", "--output", type=click.Path(), help="Write the report as JSON to this file, too.")
@calibration_option("with -t of 5 or more, or -n of 20000 or more and no -t")
def ab(
    url: str,
    requests: int | None,
    concurrency: int,
    duration_s: float | None,
    timeout_s: float,
    keep_alive: bool,
    method: str | None,
    headers: tuple[str, ...],
    body_file: str | None,
    content_type: str,
    put_file: str | None,
    head: bool,
    any_length: bool,
    cookies: tuple[str, ...],
    credentials: str | None,
    proxy_credentials: str | None,
    proxy: str | None,
    csv_file: str | None,
    gnuplot_file: str | None,
    no_percentiles: bool,
    no_deviations: bool,
    buffer_bytes: int | None,
    source: str | None,
    protocol: str | None,
    ciphers: str | None,
    nameless: bool,
    certificate: str | None,
    go_on: bool,  # noqa: ARG001 - ab's option asks for what is always done
    verbosity: int,
    quiet: bool,
    output: str | None,
    calibrates: bool | None,
) -> None:
    """Send requests as ApacheBench does, and print its report.

    Each user sends its next request when the one before it is answered (a closed workload), over a new connection unless -k
    is given.
    """
    number = requests or (50_000 if duration_s is not None else 1)
    if concurrency > number:
        raise BadInput(f"-c {concurrency} is more than the number of requests ({number})")
    if sum((head, put_file is not None, body_file is not None)) > 1:
        raise BadInput("-i, -p and -u exclude each other")
    sent = put_file if body_file is None else body_file
    body = None if sent is None else _bytes_of(sent)
    usual = "HEAD" if head else "PUT" if put_file is not None else "GET" if body is None else "POST"
    secret = [("Cookie", "; ".join(cookies))] if cookies else []
    for name, given in (("Authorization", credentials), ("Proxy-Authorization", proxy_credentials)):
        if given is not None:
            secret.append((name, "Basic " + b64encode(given.encode()).decode()))
    origin, path = _origin(url)
    if proxy is not None and origin.scheme == "https":
        raise BadInput("-X: a proxy is asked in the clear, so it cannot be used for a URL of https")
    workload = Workload(
        origin=origin,
        path=path,
        requests=number,
        concurrency=concurrency,
        duration_s=duration_s,
        keep_alive=keep_alive,
        method=method or usual,
        headers=tuple(_header(text) for text in headers),
        credentials=tuple(secret),
        body=body,
        content_type=content_type,
        timeout_s=timeout_s,
        any_length=any_length,
        proxy=None if proxy is None else _proxy(proxy),
        tls=_tls(protocol, ciphers, certificate, nameless=nameless),
        prepare=_preparation(buffer_bytes, source),
        see=None if verbosity < 2 else lambda answer: _print_answer(answer, verbosity),
    )
    files = _Files(output, csv_file, gnuplot_file)
    files.check()
    seconds = number / _USUAL_PER_S if duration_s is None else duration_s
    with outliving_the_terminal() as stdout:
        calibration = calibrate_for(calibrates, seconds, quiet=quiet)
        code = _run_ab(
            workload, files, calibration, quiet=quiet, percentiles=not no_percentiles, deviations=not no_deviations
        )
    sys.exit(stdout.judged(code, BadInput.exit_code))


@dataclass(frozen=True)
class _Files:
    """The names of the files to write: the report as JSON, percentiles as CSV, a table for gnuplot."""

    report: str | None
    percentiles: str | None
    gnuplot: str | None

    def check(self) -> None:
        """Raises BadInput where one of them cannot be written."""
        for path in (self.report, self.percentiles, self.gnuplot):
            _check_output(path)

    def write(self, run: ClosedResult) -> list[str]:
        """Write them all. Returns a sentence on each that cannot be written."""
        failed = []
        if self.report is not None:
            try:
                write_json(self.report, run.report)
            except BadInput as error:
                failed.append(error.message)
        for path, text in ((self.percentiles, percentiles_csv), (self.gnuplot, gnuplot_table)):
            if path is not None:
                try:
                    Path(path).write_text(text(run.samples), "utf-8")
                except OSError as error:
                    failed.append(f"cannot write {path}: {error.strerror}")
        return failed


def _run_ab(
    workload: Workload,
    files: _Files,
    calibration: Calibration | None,
    *,
    quiet: bool,
    percentiles: bool,
    deviations: bool,
) -> int:
    """Carry out the run and print its report. Returns the exit code."""
    through = "" if workload.proxy is None else f" [through {workload.proxy.place}]"
    every = 0 if quiet or workload.requests <= _TOLD_ABOVE else max(workload.requests // 10, 100)
    click.echo(
        opening_text(workload.origin.host + through, f"loadgen {version()}") + ("" if every else "..."), nl=False
    )
    if every:
        click.echo()
    if workload.see is not None:
        _print_request(workload)
    sys.stdout.flush()

    def completed(requests: int) -> None:
        if requests and requests % every == 0:
            click.echo(f"Completed {requests} requests", err=True)

    unwritten: list[str] = []

    def show(run: ClosedResult) -> None:
        if every:
            click.echo(f"Finished {len(run.samples.total_us)} requests", err=True)
        if run.refused is not None and not len(run.samples.total_us):
            click.echo()
        else:
            click.echo("\n" if every else "..done\n\n")
            shown = AbReport.of(run.samples)
            shown = shown if percentiles else replace(shown, percentiles={})
            click.echo(to_text(shown, deviations=deviations), nl=False)
        unwritten.extend(files.write(run))

    run = run_ab(workload, lambda _: None, completed if every else None, calibration, show)
    warn(run.report)
    for message in unwritten:
        click.echo(f"Error: {message}", err=True)
    return _judged(workload, run) or (BadInput.exit_code if unwritten else 0)


def _judged(workload: Workload, run: ClosedResult) -> int:
    """The exit code of a run; where that is an error, a line on stderr says why."""
    if run.refused is not None:
        origin = workload.proxy or workload.origin
        what = (
            "given up, for too many connections in a row could not be opened to"
            if run.samples.answered
            else "cannot connect to"
        )
        click.echo(f"Error: {what} {origin.place} ({run.refused})", err=True)
        return COULD_NOT_RUN
    if run.signal is not None:
        return SIGNALLED + run.signal
    if len(run.samples.total_us) and not run.samples.answered:
        click.echo("Error: not one request was answered", err=True)
        return COULD_NOT_RUN
    return COULD_NOT_RUN if run.failures else 0


def _print_request(workload: Workload) -> None:
    """Print the head of the requests as `ab -v 2` does."""
    head = workload.request_bytes(agent()).partition(b"\r\n\r\n")[0].decode("latin-1")
    click.echo(f"INFO: {workload.method} header == \n---\n{head}\r\n\r\n\n---")


def _print_answer(answer: Exchange, verbosity: int) -> None:
    """Print an answer as `ab -v 2` does: its head with the beginning of its body, and what its status was."""
    text = (answer.head + answer.body)[:_SHOWN_BYTES].decode("utf-8", "replace")
    lines = (printable(line.removesuffix("\r"), "\t") for line in text.split("\n"))
    click.echo("LOG: header received:\n" + "\n".join(lines))
    if not 200 <= answer.status < 300:
        click.echo(f"WARNING: Response code not 2xx ({answer.status})")
    elif verbosity >= 3:
        click.echo(f"LOG: Response code = {answer.status}")


def _tls(protocol: str | None, ciphers: str | None, certificate: str | None, *, nameless: bool) -> TlsSettings:
    """How to speak TLS. Raises BadInput."""
    own = None if certificate is None else _bytes_of(certificate)
    version = None if protocol is None else _PROTOCOLS[protocol.upper()]
    settings = TlsSettings(verify=False, cert=own, ciphers=ciphers, version=version, names_server=not nameless)
    try:
        client_context(settings)
    except ValueError as error:
        raise BadInput(str(error)) from None
    return settings


def _preparation(buffer_bytes: int | None, source: str | None) -> Callable[[Any], None] | None:
    """What -b and -B do with each socket before it is connected; None if neither is given. Raises BadInput."""
    if source is not None:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        try:
            with socket.socket(family) as trial:
                trial.bind((source, 0))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadInput(f"-B: cannot send from {source}: {reason}") from None
    if buffer_bytes is None and source is None:
        return None

    def prepare(sock: Any) -> None:
        if buffer_bytes is not None:
            for kind in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, kind, min(buffer_bytes, _MOST_BUFFER_BYTES))
        if source is not None:
            sock.bind((source, 0))

    return prepare


def _origin(url: str) -> tuple[Origin, str]:
    """The origin that a URL names, and its path with the query. Raises BadInput."""
    try:
        # As ab does, take a URL without a scheme, if it has a path.
        parts = urlsplit(url if "://" in url or "/" not in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise BadInput(f"invalid URL {shown_url(url)}: {url_fault(error, url)}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"invalid URL {shown_url(url)}: it must begin with http:// or https:// and name a host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise BadInput(f"invalid URL {shown_url(url)}: the path must be percent-encoded")
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)), path


def _proxy(text: str) -> Origin:
    """The origin of a proxy given as HOST[:PORT]. Raises BadInput."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, 80 if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    if not host or not port or parts.netloc != text or "@" in text:
        raise BadInput(f"invalid proxy {shown_url(text)!r}: it must be HOST or HOST:PORT")
    return Origin("http", host, port)


def _header(text: str) -> tuple[str, str]:
    """Name and value of a header given as 'Name: value'. Raises BadInput."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or "\r" in text or "\n" in text:
        raise BadInput(f"invalid header {text!r}: it must be of the form 'Name: value'")
    return name.strip(), value.strip()


def _bytes_of(path: str) -> bytes:
    """The content of a file. Raises BadInput where it cannot be read."""
    try:
        return read_bytes(path, _LARGEST_BODY)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _check_output(path: str | None) -> None:
    """Raises BadInput where the report could not be written to this file."""
    if path is not None:
        try:
            check_writable(Path(path))
        except WriteError as error:
            raise BadInput(str(error)) from None
