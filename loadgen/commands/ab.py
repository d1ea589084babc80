"""The command `loadgen ab`: a closed workload like ApacheBench's, and ApacheBench's report."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from loadgen.closed import Workload
from loadgen.commands.exits import COULD_NOT_RUN, SIGNALLED, warn, write_json
from loadgen.environment import version
from loadgen.http.route import Origin
from loadgen.runner import run_ab
from loadgen.watch.progress import LiveLine
from reports.cli import BadInput
from reports.files import WriteError, check_writable
from reports.formats.apachebench import AbReport, opening_text, to_text


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
@click.option(
    "-t", "duration_s", type=click.FloatRange(min=0, min_open=True), help="Stop after this number of seconds."
)
@click.option(
    "-s",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
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
@click.option("-q", "quiet", is_flag=True, help="Show no progress on stderr.")
@click.option("-o", "--output", type=click.Path(), help="Write the report as JSON to this file, too.")
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
    quiet: bool,
    output: str | None,
) -> None:
    """Send requests as ApacheBench does, and print its report.

    Each user sends its next request when the one before it is answered (a closed workload), over a new connection unless -k
    is given.
    """
    number = requests or (50_000 if duration_s is not None else 1)
    if concurrency > number:
        raise BadInput(f"-c {concurrency} is more than the number of requests ({number})")
    body = _bytes_of(body_file) if body_file is not None else None
    origin, path = _origin(url)
    workload = Workload(
        origin=origin,
        path=path,
        requests=number,
        concurrency=concurrency,
        duration_s=duration_s,
        keep_alive=keep_alive,
        method=method or ("GET" if body is None else "POST"),
        headers=tuple(_header(text) for text in headers),
        body=body,
        content_type=content_type,
        timeout_s=timeout_s,
    )
    sys.exit(_run_ab(workload, quiet, output))


def _run_ab(workload: Workload, quiet: bool, output: str | None) -> int:
    """Carry out the run and print its report. Returns the exit code."""
    _check_output(output)
    click.echo(opening_text(workload.origin.host, f"loadgen {version()}"))
    live = LiveLine(plain=not quiet)
    run = run_ab(workload, (lambda _: None) if quiet else live)
    live.clear()
    if len(run.samples.total_us) or run.refused is None:
        click.echo(to_text(AbReport.of(run.samples)), nl=False)
    if output is not None:
        write_json(output, run.report)
    warn(run.report)
    if run.refused is not None:
        origin = workload.origin
        click.echo(f"Error: cannot connect to {origin.host}:{origin.port} ({run.refused})", err=True)
        return COULD_NOT_RUN
    if run.signal is not None:
        return SIGNALLED + run.signal
    return COULD_NOT_RUN if run.failures else 0


def _origin(url: str) -> tuple[Origin, str]:
    """The origin that a URL names, and its path with the query. Raises BadInput."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"invalid URL {url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"invalid URL {url}: it must begin with http:// or https:// and name a host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise BadInput(f"invalid URL {url}: the path must be percent-encoded")
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)), path


def _header(text: str) -> tuple[str, str]:
    """Name and value of a header given as 'Name: value'. Raises BadInput."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or "\r" in text or "\n" in text:
        raise BadInput(f"invalid header {text!r}: it must be of the form 'Name: value'")
    return name.strip(), value.strip()


def _bytes_of(path: str) -> bytes:
    """The content of a file. Raises BadInput where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _check_output(path: str | None) -> None:
    """Raises BadInput where the report could not be written to this file."""
    if path is not None:
        try:
            check_writable(Path(path))
        except WriteError as error:
            raise BadInput(str(error)) from None
