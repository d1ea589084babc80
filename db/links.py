"""Which URLs and codes a link may have. Pure functions: they know neither a request nor the database."""

import re
import secrets
import string
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from socket import inet_aton, inet_ntoa
from urllib.parse import urlsplit

from idna import IDNAError, uts46_remap

LONGEST_URL = 2048
"""Longest URL of a link, in characters."""

RESERVED_CODES = frozenset({
    "health", "live", "links", "pool", "metrics", "openapi", "static", "admin", "api", "favicon", "robots",
})  # fmt: skip
"""Words that are, or may become, addresses of the service itself, and so cannot be codes, in any case of letters."""

CODE_RULE = "1 to 64 letters, digits, - and _"
"""What `is_code` accepts, in words."""

# Their keys are the schemes that a link's URL may have.
_DEFAULT_PORTS = {"http": 80, "https": 443}

_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CODE_ALPHABET = string.ascii_letters + string.digits
_CODE_LENGTH = 7

_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
# A host whose last part is a number is an IPv4 address to browsers, or nothing.
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")
# As systems have them in /etc/hosts.
_LOOPBACK_NAMES = {
    "localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback",
    "localhost.localdomain", "localhost4.localdomain4", "localhost6.localdomain6",
}  # fmt: skip
_LOOPBACK = "loopback"


def is_code(text: str) -> bool:
    """Whether a link could have this code. Where not, it need not be looked up, and perhaps could not even be."""
    return _CODE.fullmatch(text) is not None


def random_code() -> str:
    """A new code of 7 letters and digits; it may be taken."""
    return "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_LENGTH))


def url_problem(url: str, own_addresses: Iterable[tuple[str, int]]) -> str | None:
    """Why a link must not have this URL, as the rest of a sentence that begins with "the URL"; None where it may.

    `own_addresses` are the host and port of this service, by each name that is known: a link to it could be a loop.
    """
    if len(url) > LONGEST_URL:
        return f"is longer than {LONGEST_URL} characters"
    if not url.isprintable() or " " in url or "\\" in url:
        return "holds a space, a backslash or a control character"
    try:
        parts = urlsplit(url)
        name = parts.hostname or ""
        # Encoded as the redirect's Location will be: what cannot be encoded could be stored, but never followed.
        host, port = _encoded(name).rstrip("."), parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return "must begin with http:// or https:// and a host"
    if host != _encoded_by_browsers(name):
        return "holds a host that is one domain to browsers and another to older programs: write it as xn--..."
    if "@" in parts.netloc:
        return "holds credentials"
    # A host with %6c in it, say, is one with an l to a browser, and not to us.
    if not _HOST.fullmatch(host) or not _stands_alone(host, parts.netloc):
        return "holds a host that is not valid"
    if port == 0:
        return "holds the port 0"
    place = _place(host, port or _DEFAULT_PORTS[parts.scheme])
    if any(place == _place(*own) for own in own_addresses):
        return "points at this service"
    return None


def _stands_alone(host: str, netloc: str) -> bool:
    """Whether nothing but a port follows the host, which is an IPv6 address where it has brackets, and IPv4 where it ends so."""
    if netloc.startswith("["):
        return ":" in host and netloc.partition("]")[2][:1] in ("", ":")
    return ":" not in host and (_ENDS_IN_NUMBER.fullmatch(host) is None or _ipv4(host) is not None)


def _ipv4(host: str) -> str | None:
    """The IPv4 address that a host is to a browser: 127.1, 0x7f000001 and 2130706433 are 127.0.0.1; None: it is none."""
    try:
        return inet_ntoa(inet_aton(host))
    except OSError:
        return None


def _place(host: str, port: int) -> tuple[str, int]:
    """What two addresses of one server have in common: 80 usually leads on to 443, so the two count as one port."""
    return _machine(host), _DEFAULT_PORTS["https"] if port in _DEFAULT_PORTS.values() else port


def _encoded(name: str) -> str:
    """A host in ASCII, as Python and so the Location of a redirect encode it (IDNA 2003). Raises UnicodeError."""
    return name.encode("idna").decode()


def _encoded_by_browsers(name: str) -> str | None:
    """A host in ASCII, as browsers encode it (UTS 46), without a dot at its end; None where they refuse it."""
    if name.isascii():
        return name.rstrip(".")
    try:
        labels = uts46_remap(name, std3_rules=False, transitional=False).rstrip(".").split(".")
    except IDNAError:
        return None
    return ".".join(each if each.isascii() else f"xn--{each.encode('punycode').decode()}" for each in labels)


def base_url(text: str) -> str:
    """The URL under which the service's links stand for the public, with a slash at its end. Raises ValueError."""
    problem = url_problem(text, ())
    if problem is not None or "?" in text or "#" in text:
        raise ValueError("an http:// or https:// URL without ? and #")
    return text.rstrip("/") + "/"


def address_of(url: str) -> tuple[str, int]:
    """Host, in ASCII where that can be, and port of a URL that has no `url_problem`, or by which somebody asked."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with suppress(UnicodeError):
        host = _encoded(host)
    return host, parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def is_wildcard(host: str) -> bool:
    """Whether a server that is bound to this address can be reached by every address of its machine."""
    return host in ("", "0.0.0.0", "::")


def _machine(host: str) -> str:
    """One spelling for all names of an address, and one for all that mean this machine."""
    host = host.lower().rstrip(".")
    try:
        address = ip_address(_ipv4(host) or host)
    except ValueError:
        return _LOOPBACK if host in _LOOPBACK_NAMES or host.endswith(".localhost") else host
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return _LOOPBACK if address.is_loopback or address.is_unspecified else str(address)
