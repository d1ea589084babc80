"""The command `loadgen init`: a first script for a service, made from its OpenAPI document or from a recording of its traffic."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from loadgen.commands.exits import COULD_NOT_RUN
from loadgen.commands.script_options import check_url
from reports.cli import BadInput, check_output
from reports.files import WriteError, exists, read_bytes
from reports.printable import printable, shown_url
from reports.writers.output import put

if TYPE_CHECKING:
    from loadgen.script_from.asking import Page, Service
    from loadgen.script_from.draft import Draft, NothingToRequest
    from loadgen.script_from.from_openapi import Choice
    from loadgen.script_from.openapi import Api
    from loadgen.script_from.references import References

_LARGEST_BYTES = 200_000_000
_STDOUT = "-"
_LONGEST_NAME = 255
_JSON_DOCUMENT = re.compile(rb'"(?:openapi|swagger)"\s*:\s*"|"log"\s*:\s*\{')
_YAML_DOCUMENT = re.compile(rb"^(?:openapi|swagger)[ \t]*:", re.MULTILINE)


class _NotReachable(click.ClickException):
    """Nothing answers; ends the command with one line on stderr."""

    exit_code = COULD_NOT_RUN


@dataclass(frozen=True, slots=True)
class _Options:
    target: str | None
    writes: bool
    static: bool
    values: tuple[str, ...]
    limit: int
    probe: bool
    insecure: bool


@click.command()
@click.argument("source", metavar="URL|FILE")
@click.option(
    "-t", "--target", metavar="URL", help="Base URL of the service, instead of the one that the document names."
)
@click.option("--writes", is_flag=True, help="Also make requests that change something: POST, PUT, PATCH, DELETE.")
@click.option(
    "--value",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a parameter that the document has no example for; may be repeated.",
)
@click.option("--static", is_flag=True, help="From a HAR file, also take images, styles, scripts and fonts.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Most requests that the script may have.",
)
@click.option("--no-probe", is_flag=True, help="Do not send the GETs to the service; rely on the document.")
@click.option("-k", "--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "-o", "--output", default="load.yml", show_default=True, metavar="FILE", help="The script's file; - is stdout."
)
def init(source: str, output: str, force: bool, no_probe: bool, **given: Any) -> None:
    """Write a first load-test script for a service.

    URL is the address of a service, where the command looks for an OpenAPI document, or the address of such a document. For
    a service without one, the script has a single GET. FILE is an OpenAPI document (2.0 or 3.0 to 3.2, as JSON or YAML), or
    a HAR file: traffic recorded by a browser.

    Each GET of the document is sent once, to see what it answers, but only to a host that you named on the command line or
    to this machine (--no-probe sends none). Requests that cannot be made are listed at the end of the script, with the
    reason. Secrets are read from environment variables that the script names, such as TOKEN.

    Exit code 2: the input cannot be used; 3: nothing answers.
    """
    if output != _STDOUT:
        if not exists(output):
            check_output(output)
        elif not force:
            raise BadInput(f"{output} is there already: --force replaces it, -o names another file")
    from loadgen.script_from.draft import Unusable
    from loadgen.script_from.writer import script_text

    options = _Options(probe=not no_probe, **given)
    try:
        draft = _draft(source, options)
        text = script_text(draft)
    except Unusable as reason:
        raise BadInput(str(reason)) from None
    try:
        put(text, None if output == _STDOUT else output)
    except WriteError as error:
        raise BadInput(str(error)) from None
    _tell(draft, output)


def _say(line: str) -> None:
    click.echo(printable(line), err=True)


def _tell(draft: Draft, output: str) -> None:
    """Say on stderr what was made, and what to do with it."""
    from loadgen.script_from.draft import counted

    requests, scenarios = counted(draft.requests, "request"), counted(len(draft.flows), "scenario")
    left = f"; {len(draft.left_out)} left out, listed at its end" if draft.left_out else ""
    _say(f"{'the script' if output == _STDOUT else output}: {requests} in {scenarios}, for {draft.target}{left}")
    for note in draft.notes:
        _say(note)
    for secret in draft.secrets:
        if not secret.is_set:
            _say(f"{secret.variable} is not set: some requests need it. Set it and make the script again.")
    if any("no value is known for" in each.why for each in draft.left_out):
        _say("--value NAME=VALUE gives a value to a parameter that nothing is known for.")
    if output != _STDOUT:
        _say(f"Next: loadgen run {output}")


def _draft(source: str, options: _Options) -> Draft:
    """The draft of a script for a source. Raises Unusable, BadInput, and _NotReachable."""
    from loadgen.script_from.asking import is_url

    if options.target is not None:
        _check_url(options.target, "--target: ")
    if is_url(source):
        _check_url(source)
        return _from_url(source, options)
    path = Path(source)
    try:
        content = read_bytes(path, _LARGEST_BYTES)
    except OSError as error:
        is_like_url = ("." in source or ":" in source) and not exists(source)
        hint = ": a URL begins with http:// or https://" if is_like_url else ""
        raise BadInput(f"cannot read {_shortened(source)}: {error.strerror}{hint}") from None
    return _from_document(content, source, str(path.resolve()), options, named=())


def _check_url(url: str, before: str = "") -> None:
    """Raises BadInput for what is no URL of a service, and for one with a password, which would stand in the script."""
    check_url(url, before)
    if "@" in urlsplit(url).netloc:
        raise BadInput(
            f"{before}{shown_url(url)}: a script must not hold a user or a password; without them, it can send"
            ' a variable: defaults: {headers: {Authorization: "Basic {{ $processEnvironment.BASIC_AUTH }}"}}'
        )


def _shortened(name: str) -> str:
    """The name of a file; of one that is too long for a name, such as the text of a document, only its start."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _from_url(url: str, options: _Options) -> Draft:
    from loadgen.script_from.asking import Unreachable, get_document, places
    from loadgen.script_from.draft import Draft, Flow, Step, Unusable

    try:
        page = get_document(url, insecure=options.insecure)
    except Unreachable as failed:
        raise _NotReachable(f"cannot reach {url}: {failed}") from None
    if page.status < 300 and _is_document(page.content):
        return _from_document(page.content, url, page.url, options, named=(url,))
    for place in places(page.url):
        try:
            found = get_document(place, insecure=options.insecure)
        except Unreachable:
            continue
        if found.status < 300 and _is_document(found.content):
            _say(f"found {place}")
            return _from_document(found.content, place, found.url, options, named=(url,))
    if page.status >= 400:
        raise Unusable(f"{url} answers {page.status}, and no OpenAPI document was found there")
    parts = urlsplit(url)
    target = (options.target or f"{parts.scheme}://{parts.netloc}").rstrip("/")
    asked = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    status = page.status
    step = Step("get", asked, (status,), follow_redirect=status < 300)
    note = "No OpenAPI document was found: this script makes one request."
    return Draft(url, target, [Flow("one page", [step])], slowest_ms=page.ms, notes=[note])


def _is_document(content: bytes) -> bool:
    """Whether a text is an OpenAPI document or a HAR file. A broken one counts: it will be told what is wrong."""
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return start != b"<" and (_JSON_DOCUMENT if start == b"{" else _YAML_DOCUMENT).search(content) is not None


def _from_document(content: bytes, source: str, location: str, options: _Options, *, named: Sequence[str]) -> Draft:
    """The draft for a document that was read from `location`; `named` are the URLs of the command line."""
    from loadgen.script_from.asking import Service, is_url, same_host
    from loadgen.script_from.draft import Draft, Flow, NothingToRequest, Step, Unusable
    from loadgen.script_from.from_har import draft_from_har, is_har
    from loadgen.script_from.from_openapi import Choice, draft_from_api
    from loadgen.script_from.openapi import is_openapi, read_api
    from loadgen.script_from.references import References, decoded

    document = decoded(content, source, _say)
    if is_har(document):
        return draft_from_har(
            document,
            source,
            target=options.target,
            static=options.static,
            limit=options.limit,
            environment=os.environ,
        )
    if not is_openapi(document):
        raise Unusable(f"{source}: neither an OpenAPI document nor a HAR file")
    references = References(location, document, lambda other: _other_document(other, location, options))
    api = read_api(document, source, location, references, options.target)
    notes = []
    target = api.target
    if options.target is None and is_url(location) and not same_host(target, location):
        # The load goes to the host that the user has named, whatever host the document names.
        host = "{0.scheme}://{0.netloc}".format(urlsplit(location))
        notes.append(f"The document names {target} as its server; this script goes to {host}. --target changes that.")
        target = host + urlsplit(target).path
    elif options.target is None and not api.named_target and not is_url(location):
        notes.append(f"The document names no host: the target is {target}. --target changes that.")
    ask = root = service = None
    is_named = bool(options.target) or any(same_host(target, url) for url in named) or _is_here(target)
    if options.probe and is_named:
        service = Service(target, insecure=options.insecure)
        root = _root(service, required=options.target is not None)
        ask = None if root is None else service.ask
    choice = Choice(target, options.writes, options.limit, is_named, os.environ, _values(options.values))
    try:
        draft = draft_from_api(api, references, choice, ask)
    except NothingToRequest as nothing:
        below = _below_base_path(api, references, choice, nothing, options) if service is not None else None
        if below is not None:
            return replace(below, notes=[*notes, *below.notes])
        if root is None or root.status >= 400:
            raise
        step = Step("get", "/", (root.status,), follow_redirect=root.status < 300)
        notes.append(f"This script requests / alone: {nothing}.")
        draft = Draft(api.title or source, target, [Flow("one page", [step])], nothing.left_out, slowest_ms=root.ms)
    if service is not None and service.gave_up:
        notes.append("The service was asked for a minute; the operations after that are as the document says.")
    if ask is None:
        notes.append("The service was not asked: the statuses are those of the document.")
    return replace(draft, notes=[*notes, *draft.notes])


def _below_base_path(
    api: Api, references: References, choice: Choice, nothing: NothingToRequest, options: _Options
) -> Draft | None:
    """The draft for the document's base path below a target that lacks it; None where that is not what was missing."""
    from loadgen.script_from.asking import Service
    from loadgen.script_from.draft import Unusable
    from loadgen.script_from.from_openapi import draft_from_api

    lacks_it = options.target is not None and api.base_path and not urlsplit(choice.target).path.strip("/")
    if not lacks_it or not any("answered 404" in each.why for each in nothing.left_out):
        return None
    target = choice.target + api.base_path
    service = Service(target, insecure=options.insecure)
    try:
        draft = draft_from_api(api, references, replace(choice, target=target), service.ask)
    except Unusable:
        return None
    note = f"Below {choice.target} itself nothing was found: the document's base path {api.base_path} is part of the target."
    return replace(draft, notes=[note, *draft.notes])


def _values(given: Sequence[str]) -> dict[str, str]:
    """The values of --value by name. Raises BadInput."""
    for each in given:
        if "=" not in each.lstrip("="):
            raise BadInput(f"--value: must be NAME=VALUE, not {each!r}")
    return {name: value for name, _, value in (each.partition("=") for each in given)}


def _is_here(url: str) -> bool:
    from loadgen.watch.live import is_loopback

    return is_loopback(urlsplit(url).hostname or "")


def _root(service: Service, *, required: bool) -> Page | None:
    """What the service answers below its base URL; None where nothing answers. Raises _NotReachable if it must answer."""
    from loadgen.script_from.asking import Unreachable, get

    try:
        return get(f"{service.base}/", insecure=service.insecure)
    except Unreachable as failed:
        if required:
            raise _NotReachable(
                f"cannot reach {service.base}: {failed}; --no-probe makes the script without it"
            ) from None
        return None


def _other_document(other: str, first: str, options: _Options) -> bytes:
    """What a document refers to: a file beside a file, or a page of the same host. Raises Unusable."""
    from loadgen.script_from.asking import Unreachable, get_document, is_url, same_host
    from loadgen.script_from.draft import Unusable

    if is_url(other):
        if not is_url(first) or not same_host(other, first):
            raise Unusable(f"it refers to {other}, which is not read")
        try:
            page = get_document(other, insecure=options.insecure)
        except Unreachable as failed:
            raise Unusable(f"it refers to {other}: {failed}") from None
        if page.status != 200:
            raise Unusable(f"it refers to {other}, which answers {page.status}")
        return page.content
    try:
        path = Path(other)
        if not path.is_file():
            raise Unusable(f"it refers to {other}, which is no file")
        return read_bytes(path, _LARGEST_BYTES)
    except (OSError, ValueError) as error:
        raise Unusable(f"it refers to {other}, which cannot be read: {error}") from None
