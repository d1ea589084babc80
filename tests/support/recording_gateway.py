"""An HTTP server that keeps what is posted to it: a push gateway, and a collector of OpenTelemetry."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Gateway(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, status=202):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.posts = status, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def pushed(self):
        """For each push to the gateway: the value of each line, by the line's name and labels; and the types."""
        for path, _, body in self.posts:
            if path.startswith("/metrics/job/"):
                lines = [line for line in body.splitlines() if line and not line.startswith("# HELP")]
                yield dict(line.rsplit(" ", 1) for line in lines)

    def collected(self):
        """For each document that the collector got: the document, and its metrics by name, without values and instants."""
        for path, _, body in self.posts:
            if path == "/v1/metrics":
                document = json.loads(body)
                (scope,) = document["resourceMetrics"][0]["scopeMetrics"]
                yield document, {metric["name"]: shape(metric) for metric in scope["metrics"]}


def shape(value):
    """A JSON value with each number replaced, so that two runs can be compared."""
    return json.loads(re.sub(r"\d+(\.\d+)?", "9", json.dumps(value)))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posts.append((self.path, dict(self.headers), body.decode()))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def recording_gateway(status=202):
    with Gateway(status) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
