"""One run against servers that send without measure: its memory and time stay bounded, and each user has its error."""

import json
import subprocess
import sys
import time
import zlib
from itertools import count
from pathlib import Path

from reports.formats.artillery_json import from_json

MEGABYTE = b"\0" * (1 << 20)
OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
number = count()


def bomb(megabytes):
    """So much in one gzip stream, but for its end. Fully flushed, each megabyte after the first is the same few bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, following = (packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + following * (megabytes - 1)


def sent(piece, times):
    """Pieces of an answer, in all larger than anybody would keep."""
    return (piece for _ in range(times))


def cookies():
    return [OK, *(b"Set-Cookie: c%d=1\r\n" % next(number) for _ in range(500)), b'Content-Length: 7\r\n\r\n{"a":1}']


PACKED = bomb(500)
ANSWERS = {
    "bomb": lambda: [OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED), PACKED],
    "body": lambda: [OK + b"\r\n", *sent(MEGABYTE, 300)],
    "fields": lambda: [OK, *sent(b"X-Filler: %b\r\n" % (b"x" * 1000), 100_000)],
    "field": lambda: [OK, *sent(MEGABYTE, 100)],
    "trailers": lambda: [CHUNKED, b"1\r\na\r\n0\r\n", *sent(b"X-Filler: %b\r\n" % (b"x" * 1000), 100_000)],
    "extension": lambda: [CHUNKED, b"1;a=", *sent(b"x" * 100_000, 1000)],
    "interim": lambda: sent(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000, 1000),
    "redirect": lambda: [b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /redirect?%d\r\n\r\n" % next(number)],
    "cookies": cookies,
}
ERRORS = {
    "ERR_BODY_TOO_LARGE": 2,
    "HPE_HEADER_OVERFLOW": 3,
    "ECONNRESET": 2,
    "ERR_TOO_MANY_REDIRECTS": 1,
}


def answer(connection, head):
    kind = head.split(b" ", 2)[1][1:].partition(b"?")[0].decode()
    for piece in ANSWERS[kind]():
        connection.sendall(piece)
    return kind in ("redirect", "cookies")


def highest_mb(process):
    """The most memory that a process has had when it ends."""
    highest = 0
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM"):
                highest = int(line.split()[1]) // 1024
        time.sleep(0.02)
    return highest


def test_memory_and_time_of_a_run_are_bounded_whatever_is_sent(tmp_path, serve, start_process):
    flow = [{"loop": [{"get": {"url": "/{{ kind }}", "capture": {"json": "$.a", "as": "a"}}}], "count": 20}]
    config = {
        "target": serve(answer).url,
        "http": {"timeout": 60},
        "phases": [{"duration": "500ms", "arrivalCount": len(ANSWERS)}],
        "payload": {"path": "kinds.csv", "fields": ["kind"], "order": "sequence"},
    }
    (tmp_path / "kinds.csv").write_text("\n".join(ANSWERS))
    (tmp_path / "script.json").write_text(json.dumps({"config": config, "scenarios": [{"flow": flow}]}))
    command = [sys.executable, "-m", "loadgen", "run", "script.json", "-q", "-o", "out.json", "--max-body", "4"]
    process = start_process(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    megabytes = highest_mb(process)
    assert process.communicate()[1].count("Traceback") == 0
    counters = from_json((tmp_path / "out.json").read_text("utf-8")).aggregate.counters
    found = {name.removeprefix("errors."): n for name, n in counters.items() if name.startswith("errors.")}
    assert found == ERRORS
    assert counters["vusers.completed"] == 1
    assert megabytes < 130
