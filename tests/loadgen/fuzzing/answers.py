"""Answers that are wrong in every way a header field can be, each a function of a seed and of the path that was asked for.

An answer is made of a status line, a few fields with values that are right, odd or wrong, and a body; then some of its bytes
may be changed. It never leads anywhere but to this machine: hosts that a field names are on loopback, or do not exist.
"""

import gzip
import zlib
from dataclasses import dataclass
from itertools import pairwise
from random import Random

DIGITS = (
    "0", "1", "-1", "--5", "+3", "007", "1.5", "1e400", "nan", "inf", "-inf", "²", "٣", "", " ", "0x10", "9" * 400,
    "9" * 5000,
)  # fmt: skip
TEXTS = (
    "", " ", "\t", "a", ";", ",", "=", '"', "\\", "{{ x }}", "{{", "%", "%zz", "%00", "é", "\x80\xff", "\x7f", "\0",
    "\r", "\n", "\x1b[31m", "a" * 5000, "__proto__", "constructor", "$processEnvironment",
)  # fmt: skip
HOSTS = (
    "127.0.0.1:1", "localhost:1", "[::1]:1", "[", "]", "[]", "[::1", "[x]", "x]", "a..b", ".", "..",
    "a" * 64 + ".invalid", "a." * 140 + "invalid", "no.invalid", "é.invalid", "xn--.invalid", "\x80.invalid", "a b",
    "a\tb", "{{ x }}", "%41.invalid", "%", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65535", "127.0.0.1:65536",
    "127.0.0.1:-1", "127.0.0.1:²", "127.0.0.1:x", "127.0.0.1:" + "9" * 5000, "u:p@127.0.0.1:1", "@127.0.0.1:1",
    "u@@127.0.0.1:1", ":@127.0.0.1:1", "127.1:1", "2130706433:1", "0x7f.1:1", "[::ffff:127.0.0.1]:1",
    "[fe80::1%lo]:1", "[::1]x:1", "",
)  # fmt: skip
"""What may stand after `//` in a URL. Nothing listens on port 1, and `.invalid` never resolves (RFC 2606)."""
SCHEMES = (
    "http:", "https:", "HTTP:", "", "ftp:", "javascript:", "data:", "ht tp:", "http", ":", "file:", "ws:", "é:",
)  # fmt: skip
RELATIVE = ("", "?", "#", "?a=b", "#a", "..", "../../..", ".", "./", "/.", "//", "///", "/\\", "\\\\", "?" + "a" * 9000)
STATUS_LINES = (
    "HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 204 No", "HTTP/1.1 304 Not",
    "HTTP/1.1 100 Continue", "HTTP/1.1 101 Switching", "HTTP/1.1 103 Early", "HTTP/1.1 999 x", "HTTP/1.1 000 x",
    "HTTP/1.1 099 x", "HTTP/1.1 20 x", "HTTP/1.1 2000 x", "HTTP/1.1 ²00 x", "HTTP/1.1 -20 x", "HTTP/2 200 OK",
    "HTTP/2.0 200 OK", "HTTP/0.9 200 OK", "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK", "http/1.1 200 OK", "ICY 200 OK",
    "", "\r\nHTTP/1.1 200 OK", "HTTP/1.1 500 \x80\xff", "HTTP/1.1 404 " + "x" * 9000,
)  # fmt: skip
CODINGS = (
    "gzip", "x-gzip", "deflate", "br", "zstd", "identity", "GZIP", "gzip, gzip", "gzip, br", "gzip;q=1", "chunked",
    "", "none", "compress",
)  # fmt: skip
TRANSFERS = (
    "chunked", "Chunked", "chunked, chunked", "gzip, chunked", "chunked, gzip", "identity", "", "xchunked",
    "chunked;a=b", " chunked ", "\tchunked",
)  # fmt: skip
BODIES = (
    b"", b"{}", b'{"id": 1, "next": "/a"}', b"[1,2,[3]]", b'"text"', b"null", b"{", b'{"id": 1e999}', b"[" * 3000,
    b'{"id": "\\ud800"}', b"\xff\xfe\x00", b'<html><form><input name="token" value="x"></form></html>', b"<" * 2000,
    b'{"id": ' + b"9" * 5000 + b"}", b'{"__proto__": {"id": 2}}',
)  # fmt: skip
TYPES = (
    "application/json", "text/html", "application/json; charset=utf-16", "text/html; charset=nonsense", "", ";",
    "json", "é",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The bytes of an answer, in the pieces in which they are sent; and whether the connection stays open after them."""

    pieces: tuple[bytes, ...]
    stays: bool


def answer(seed, path):
    """The answer that this seed has for this path (bytes)."""
    rng = Random(f"{seed} {path.decode('latin-1')}")
    kind = rng.random()
    if kind < 0.4:
        return Answer((_good(rng),), stays=True)
    body = rng.choice(BODIES)
    fields, body = _framed(rng, [field(rng, path) for _ in range(rng.randrange(4))], body)
    line = (
        rng.choice(STATUS_LINES)
        if rng.random() < 0.08
        else f"HTTP/1.1 {rng.choice((200, 200, 301, 302, 303, 307, 308, 404, 500))} x"
    )
    if rng.random() < 0.9:
        # Else the next request may be sent into a connection that is about to be closed.
        fields.append(("Connection: ", "close"))
    rng.shuffle(fields)
    end = "\r\n" if rng.random() < 0.99 else "\n"
    head = end.join([line, *(name + value for name, value in fields), "", ""])
    data = head.encode("latin-1", "backslashreplace" if rng.random() < 0.5 else "replace") + body
    if b"//" not in data and rng.random() < 0.12:
        # An address with a digit less may be that of another machine.
        data = _damaged(rng, data)
    return Answer(_cut(rng, data), stays=False)


def _good(rng):
    body = rng.choice(BODIES)
    cookie = f"Set-Cookie: c{rng.randrange(5)}=1\r\n" if rng.random() < 0.3 else ""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{cookie}\r\n".encode() + body


def field(rng, path):
    """A field with its value: (name with its colon and what follows that, value)."""
    name, make = rng.choice(_FIELDS)
    if rng.random() < 0.02:
        name = rng.choice(_NO_NAMES)
    value = make(rng, path)
    if rng.random() < 0.05:
        at = rng.randrange(len(value) + 1)
        value = value[:at] + rng.choice(TEXTS) + value[at:]
    if rng.random() < 0.8:
        # Else what is odd in the value would hardly ever be reached.
        value = "".join(letter for letter in value if letter >= " " and letter != "\x7f")
    odd = rng.random() < 0.03
    return rng.choice((name, name.lower(), name.upper())) + rng.choice(
        (" : ", " ") if odd else (": ", ": ", ":", ":\t")
    ), value


def _set_cookie(rng, _):
    name = rng.choice(("a", "session", "__Host-a", "__Secure-a", *TEXTS))
    pair = name + rng.choice(("=", "=", "=", "", "==")) + rng.choice(("1", *TEXTS))
    attributes = (
        lambda: "Max-Age=" + rng.choice(DIGITS),
        lambda: "Expires=" + rng.choice((_date(rng), *TEXTS, *DIGITS)),
        lambda: "Domain=" + rng.choice(("127.0.0.1", ".127.0.0.1", ".", "..", "invalid", "localhost", *TEXTS)),
        lambda: "Path=" + rng.choice(("/", "/a", "//", "a", *TEXTS)),
        lambda: rng.choice(("Secure", "HttpOnly", "SameSite=None", "Partitioned", *TEXTS)),
    )
    return "; ".join([pair, *(rng.choice(attributes)() for _ in range(rng.randrange(4)))])


_DATE = (
    ("Wed, ", "", "Wednesday, ", "Xyz, ", ","),
    ("09", "9", "31", "0", "32", "²", "99999"),
    (" ", "-", "/", ""),
    ("Jun", "Feb", "Foo", "6", ""),
    (" ", "-", ""),
    ("2021", "0", "1", "99", "9999", "10000", "-1", "99999999999999999999"),
    (" 10:18:14", " 25:61:61", " 10:18", " ::", "", " 1:2:3:4", " 10.18.14"),
    (" GMT", "", " +9999", " -0000", " +99999999999", " EST", " X"),
)
"""What a date may consist of: of each row one, in this order."""


def _date(rng):
    return "".join(rng.choice(part) for part in _DATE)


def _server_timing(rng, _):
    def entry():
        name = rng.choice(("total", "db", "pool", *TEXTS))
        return (
            name
            + rng.choice((";dur=", ";dur=", ";desc=x;dur=", ";dur", "; dur = ", ";DUR=", ';desc="a,b;dur=1";dur=', ""))
            + rng.choice((*DIGITS, "1.5", '"3"', "1..2", "."))
        )

    return rng.choice((", ", ",", ";", ",,")).join(entry() for _ in range(rng.choice((1, 1, 2, 5, 200))))


def _location(rng, path):
    next_hop = path.decode("latin-1") + "h"
    return rng.choice((
        lambda: next_hop,
        lambda: next_hop,
        lambda: rng.choice(SCHEMES) + "//" + rng.choice(HOSTS) + rng.choice(("", "/", next_hop, "?", "#", "\\")),
        lambda: rng.choice(RELATIVE),
        lambda: next_hop + rng.choice(TEXTS),
        lambda: "/" + rng.choice(TEXTS) + "/" + next_hop.strip("/"),
        lambda: rng.choice(SCHEMES) + next_hop,
    ))()  # fmt: skip


def _any_field(rng, _):
    return rng.choice(TEXTS)


_FIELDS = (
    ("Set-Cookie", _set_cookie),
    ("Set-Cookie", _set_cookie),
    ("Server-Timing", _server_timing),
    ("Location", _location),
    ("Location", _location),
    ("Content-Type", lambda rng, _: rng.choice(TYPES)),
    ("Content-Encoding", lambda rng, _: rng.choice(CODINGS)),
    ("Connection", lambda rng, _: rng.choice(("close", "keep-alive", "upgrade", "Close, x", *TEXTS))),
    ("Keep-Alive", lambda rng, _: "timeout=" + rng.choice(DIGITS)),
    ("Retry-After", lambda rng, _: rng.choice(DIGITS)),
    ("X-Id", _any_field),
    ("X" * 3000, _any_field),
    ("Date", lambda rng, _: _date(rng)),
)
_NO_NAMES = ("", "X y", " folded", "X\0", "é", "{{ x }}", "Set-Cookie,", '"Location"')


def _framed(rng, fields, body):
    """Say how long the body is, rightly or wrongly; and compress and chunk it as the fields say, or otherwise."""
    coding = next((value for name, value in fields if name.strip(" :\t").lower() == "content-encoding"), None)
    if coding and rng.random() < 0.6:
        body = gzip.compress(body) if "zip" in coding.lower() else zlib.compress(body)
        if rng.random() < 0.3:
            body = body[: rng.randrange(len(body))]
    kind = rng.random()
    length = str(len(body))
    if kind < 0.6:
        return [*fields, ("Content-Length: ", length)], body
    if kind < 0.67:
        value = rng.choice(
            (
                *DIGITS,
                length + ",",
                f"{length}, {length}",
                length + " ",
                str(len(body) + 1),
                str(max(0, len(body) - 1)),
                f"{length};x",
            )
        )
        return [*fields, ("Content-Length: ", value)], body
    if kind < 0.7:
        return [*fields, ("Content-Length: ", length), ("Content-Length: ", rng.choice((length, *DIGITS)))], body
    if kind < 0.9:
        more = [("Content-Length: ", length)] if rng.random() < 0.1 else []
        return [*fields, *more, ("Transfer-Encoding: ", rng.choice(("chunked", *TRANSFERS)))], _chunked(rng, body)
    return fields, body


def _chunked(rng, body):
    out = b""
    while body:
        size = rng.randrange(1, len(body) + 1)
        chunk, body = body[:size], body[size:]
        said = rng.choice((b"%x", b"%X", b"0%x", b"%x;a=b", b"%x ;", b'%x;a="b;\\"c"')) % size
        if rng.random() < 0.1:
            said = rng.choice(
                (b"", b"-1", b"g", b"0x1", b"f" * 16, b"f" * 17, b"1" * 400, b" 1", b"+1", b"%x" % (size + 1), b"\xb2")
            )
        out += said + rng.choice((b"\r\n",) * 9 + (b"\n",)) + chunk + b"\r\n"
    return out + rng.choice((b"0\r\n\r\n",) * 6 + (b"0\r\nX-After: 1\r\n\r\n", b"00\r\n\r\n", b"0\r\n", b"", b"0\n\n"))


def _damaged(rng, data):
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                del out[at : at + rng.randrange(1, 9)]
            case 1:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                out[at:at] = out[max(0, at - 12) : at]
            case 3:
                del out[at:]
    return bytes(out)


def _cut(rng, data):
    if rng.random() < 0.6 or len(data) < 2:
        return (data,)
    places = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(1, 3)))})
    return tuple(data[a:b] for a, b in pairwise(places))
