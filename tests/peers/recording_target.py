"""The server that reference scripts are run against: it answers by path, and keeps what it was asked."""

import gzip
import json
import socket
import ssl
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

DOCUMENT = {
    "id": 42, "name": "Ada", "nothing": None, "empty": "", "zero": 0, "yes": True, "half": 0.5, "list": [1, 2, 3],
    "items": [{"sku": "A1", "price": 3}, {"sku": "B2", "price": 5}], "deep": {"a": {"b": ["x", "y"]}}, "a-b": "dashed",
}  # fmt: skip
ROWS = """<html><body><h2 id="title">Rows</h2>
<ul id="u1"><li id="l1" class="odd">one</li><li id="l2">two</li><li id="l3" class="odd"><b>three</b></li></ul>
<ul id="u2"><li id="l4">four</li><li id="l5" class="odd">five</li></ul>
<a id="a1" href="/x:first">x</a><a id="a2" href="/y">y</a>
<form><input id="i1" type="text"><input id="i2" type="checkbox"><input id="i3" type="checkbox" checked></form></body></html>"""
PAGE = '<html><body><a class="x" href="/first">1</a><a class="x" href="/second">2</a><p id="p" title="T">t</p></body></html>'


class RecordingTarget:
    """Listens on an HTTP and, given a TLS context, on an HTTPS port. `asked` has a dict per request, in order of arrival."""

    def __init__(self, tls=None, address="127.0.0.1"):
        self.asked = []
        self.connections = 0
        self._lock = threading.Lock()
        self._servers = [self._start(None, address)]
        self.port = self._servers[0].server_address[1]
        self.tls_port = 0
        if tls is not None:
            self._servers.append(self._start(tls, address))
            self.tls_port = self._servers[1].server_address[1]

    def _start(self, tls, address):
        server = _Server(self, tls, address)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def connected(self):
        with self._lock:
            self.connections += 1
            return self.connections

    def record(self, request):
        with self._lock:
            self.asked.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 500

    def __init__(self, target, tls, address):
        self.target = target
        self.tls = tls
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), _Handler)

    def finish_request(self, request, client_address):
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)
        if self.tls is not None:
            request.close()

    def handle_error(self, request, client_address):
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 20

    def setup(self):
        super().setup()
        self.number = self.server.target.connected()

    def version_string(self):
        return "target"

    def log_message(self, format, *args):  # noqa: A002
        pass

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        fields = {}
        for name, value in self.headers.items():
            fields.setdefault(name.lower(), []).append(value)
        self.server.target.record({
            "method": self.command, "target": self.path, "fields": fields, "body": body.decode("utf-8", "replace"),
            "connection": self.number, "tls": isinstance(self.connection, ssl.SSLSocket),
        })  # fmt: skip
        self._answer(urlsplit(self.path), body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815 - the library's names

    def _chunks(self):
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    def _answer(self, url, body):
        kind, _, rest = url.path.strip("/").partition("/")
        if kind == "drop":
            self.close_connection = True
            return
        if kind == "slow":
            time.sleep(int(rest) / 1000)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        status, body, fields = ANSWERS.get(kind, plain)(rest, query, body)
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def plain(_rest, _query, _body):
    return 200, b"ok", [("content-type", "text/plain")]


def fixed(body, *fields):
    return lambda _rest, _query, _body: (200, body, fields)


JSON = ("content-type", "application/json")
TEXT = json.dumps(DOCUMENT).encode()
ANSWERS = {
    "json": fixed(TEXT, JSON, ("x-token", "T-77")),
    "page": fixed(PAGE.encode(), ("content-type", "text/html; charset=utf-8")),
    "rows": fixed(ROWS.encode(), ("content-type", "text/html")),
    "gzip": fixed(gzip.compress(TEXT), JSON, ("content-encoding", "gzip")),
    "deflate": fixed(zlib.compress(TEXT), JSON, ("content-encoding", "deflate")),
    "timing": fixed(b"ok", ("server-timing", "db;dur=3, total;dur=12.5")),
    "untimed": fixed(b"ok", ("server-timing", "db;dur=3")),
    "cached": fixed(b"ok", ("x-cache", "HIT from here")),
    "slow": fixed(b"slow"),
    "ring": lambda _rest, _query, _body: (302, b"", [("location", "/ring")]),
    "to": lambda rest, query, _body: (int(rest), b"", [("location", query.get("l", "/landed"))]),
    "status": lambda rest, _query, _body: (int(rest), b"" if rest == "204" else b"status", []),
    "cookie": lambda _rest, query, _body: (200, b"ok", [("set-cookie", f"{k}={v}; Path=/") for k, v in query.items()]),
    "setcookie": lambda _rest, query, _body: (
        (302 if "to" in query else 200),
        b"",
        [("set-cookie", query["v"]), ("location", query.get("to", ""))],
    ),
    "echo": lambda _rest, _query, body: (200, body, [JSON]),
}
"""What it answers, by the first part of the path: (rest of the path, query, body) -> (status, body, header fields)."""
