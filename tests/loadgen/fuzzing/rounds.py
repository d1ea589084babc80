"""A round: one `loadgen run` against a server with fuzzed answers, and whether it kept its promises."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

from reports.formats.artillery_json import from_json
from tests.loadgen.fuzzing.answers import answer
from tests.support.raw_server import RawServer

ROUNDS = 4
REQUESTS_OF_A_USER = 3 * ROUNDS
BEGUN = re.compile(rb"/u\d{6}/\d(/again|/head)?")
"""The paths that the script asks for; redirects lead to longer ones."""
UNSEEN = (
    "ECONN",
    "ENOTFOUND",
    "EAI_",
    "EADDR",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "EINVAL",
    "EPIPE",
    "ERR_SOCKET_BAD_PORT",
)
"""Errors of requests that the server may not have seen."""


def script(seed, url, users):
    """A script whose users make a few requests each, to paths of their own, and use everything that an answer can bring."""
    rng = Random(seed)
    request = {
        "url": "/{{ user }}/{{ $loopCount }}",
        "gzip": rng.random() < 0.9,
        "capture": [
            {"json": "$.id", "as": "id", "strict": rng.random() < 0.1},
            {"json": "$..[?(@.id > 0)]", "as": "found", "strict": False},
            {"header": "location", "as": "where", "strict": False},
            {"header": "set-cookie", "as": "cookies", "strict": False},
            {"regexp": "([a-z]+)=(.*)$", "group": 1, "as": "pair", "strict": False},
            {"selector": "form > input[name=token]:first", "attr": "value", "as": "token", "strict": False},
        ],
        "match": {"json": "$.id", "value": 1, "strict": False},
        "expect": [
            {"statusCode": 200},
            {"contentType": "json"},
            {"hasProperty": "id"},
            {"hasHeader": "server-timing"},
            {"headerEquals": ["set-cookie", "a=1"]},
            {"matchesRegexp": "t(o)?ken"},
            {"jmespath": "id"},
            {"cdnHit": True},
        ],
    }
    again = {
        "url": request["url"] + "/again",
        "headers": {"x-id": "{{ id }}", "x-where": "{{ where }}"},
        "followRedirect": rng.random() < 0.5,
    }
    head = {"url": request["url"] + "/head"}
    config = {
        "target": url,
        "timeout": 2,
        "phases": [{"duration": "500ms", "arrivalCount": users}],
        "payload": {"path": "users.csv", "fields": ["user"], "order": "sequence"},
        "plugins": {"expect": {"outputFormat": rng.choice(("silent", "json", "pretty", "prettyError"))}, "apdex": {}},
        "http": {"extendedMetrics": rng.random() < 0.5, "cookieJarOptions": {"looseMode": rng.random() < 0.5}},
    }
    loop = {"loop": [{"get": request}, {"get": again}, {"head": head}], "count": ROUNDS}
    return {"config": config, "scenarios": [{"flow": [loop]}]}


def run_round(seed, users, folder):
    """Carry out the round of this seed. Returns the report's counters; raises AssertionError for a promise that was broken."""
    seen = []

    def reply(connection, head):
        path = head.split(b" ", 2)[1]
        seen.append(path)
        made = answer(seed, path)
        for piece in made.pieces:
            connection.sendall(piece)
        return made.stays

    server = RawServer(reply)
    folder = Path(folder)
    (folder / "users.csv").write_text("".join(f"u{number:06}\n" for number in range(users)))
    (folder / "script.json").write_text(json.dumps(script(seed, server.url, users)))
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "loadgen", "run", "script.json", "-q", "-o", "report.json", "--seed", str(seed)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    finally:
        server.close()
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 21), (done.returncode, done.stderr[-2000:])
    counters = Counter(from_json(report.read_text("utf-8")).aggregate.counters)
    check(counters, seen, users)
    return counters


def check(counters, seen, users):
    """Whether every user and every request is accounted for. `seen` are the paths that the server was asked for."""
    errors = {name.removeprefix("errors."): n for name, n in counters.items() if name.startswith("errors.")}
    errors.pop("cookie_parse_error_invalid_cookie", None)
    assert counters["vusers.created"] == users == counters["vusers.completed"] + counters["vusers.failed"]
    assert sum(errors.values()) == counters["vusers.failed"], errors
    assert counters["http.responses"] == sum(n for name, n in counters.items() if name.startswith("http.codes."))
    assert counters["http.responses"] <= counters["http.requests"]
    answered, failed = ends(counters)
    unseen = sum(n for name, n in failed.items() if name.startswith(UNSEEN))
    # Each request that arrived was counted, and those that did not arrive are among the errors.
    assert len(seen) <= counters["http.requests"] <= len(seen) + unseen, (len(seen), failed)
    # So was each request of the script, whatever it was redirected to: it has one final answer or one error.
    begun = len({path for path in seen if BEGUN.fullmatch(path)})
    ended = sum(answered.values()) + sum(failed.values())
    assert begun <= ended <= begun + unseen, (begun, answered, failed)
    assert counters["vusers.completed"] * REQUESTS_OF_A_USER <= ended


def ends(counters):
    """How the requests of the script ended: (final answers by status, errors by name)."""
    answered, failed = Counter(), Counter()
    for name, n in counters.items():
        if name.startswith("plugins.metrics-by-endpoint."):
            into, mark = (failed, ".errors.") if ".errors." in name else (answered, ".codes.")
            into[name.partition(mark)[2]] += n
    return answered, failed
