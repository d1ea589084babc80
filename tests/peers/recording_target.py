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

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve

    def _chunks(self):
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    def _answer(self, url, body):
        kind, *rest = url.path.strip("/").split("/")
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        maker = getattr(self, f"_{kind}", None)
        if maker is None:
            self._send(200, b"ok", {"content-type": "text/plain"})
        else:
            maker(rest, query, body)

    def _send(self, status, body=b"", fields=None, *, length=True):
        self.send_response(status)
        for name, value in (fields or {}).items():
            for each in value if isinstance(value, list) else [value]:
                self.send_header(name, each)
        if length and status not in (204, 304):
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def _json(self, rest, query, body):
        self._send(200, json.dumps(DOCUMENT).encode(), {"content-type": "application/json", "x-token": "T-77"})

    def _page(self, rest, query, body):
        self._send(200, PAGE.encode(), {"content-type": "text/html; charset=utf-8"})

    def _status(self, rest, query, body):
        self._send(int(rest[0]), b"" if rest[0] == "204" else b"status")

    def _slow(self, rest, query, body):
        time.sleep(int(rest[0]) / 1000)
        self._send(200, b"slow")

    def _to(self, rest, query, body):
        self._send(int(rest[0]), b"", {"location": query.get("l", "/landed")})

    def _ring(self, rest, query, body):
        self._send(302, b"", {"location": "/ring"})

    def _cookie(self, rest, query, body):
        self._send(200, b"ok", {"set-cookie": [f"{k}={v}; Path=/" for k, v in query.items()]})

    def _gzip(self, rest, query, body):
        self._send(200, gzip.compress(json.dumps(DOCUMENT).encode()),
                   {"content-type": "application/json", "content-encoding": "gzip"})  # fmt: skip

    def _deflate(self, rest, query, body):
        self._send(200, zlib.compress(json.dumps(DOCUMENT).encode()),
                   {"content-type": "application/json", "content-encoding": "deflate"})  # fmt: skip

    def _timing(self, rest, query, body):
        self._send(200, b"ok", {"server-timing": "db;dur=3, total;dur=12.5"})

    def _untimed(self, rest, query, body):
        self._send(200, b"ok", {"server-timing": "db;dur=3"})

    def _cached(self, rest, query, body):
        self._send(200, b"ok", {"x-cache": "HIT from here"})

    def _drop(self, rest, query, body):
        self.close_connection = True

    def _echo(self, rest, query, body):
        self._send(200, body, {"content-type": "application/json"})
