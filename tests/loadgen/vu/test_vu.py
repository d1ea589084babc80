"""Virtual users walking scripts against a real server on a real socket: what is sent, what is counted."""

import base64
import gzip
import json
import re
import time
from random import Random

import gevent
import pytest
from gevent.server import StreamServer

from loadgen.clock import WallOffset, now_ns
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import TimeLimits
from loadgen.recorder import Recorder
from loadgen.script.parse import RunOptions, parse_script
from loadgen.vu.program import CompiledScript, jittered, rounds

JSON = (("Content-Type", "application/json"),)
ANSWERS = {
    "/json": (200, JSON, b'{"id": 42, "token": "abc", "list": [1, 2]}'),
    "/gzip": (200, (*JSON, ("Content-Encoding", "gzip")), gzip.compress(b'{"z": 7}')),
    "/cookie": (200, (("Set-Cookie", "sid=abc; Path=/; HttpOnly"),), b""),
    "/500": (500, (), b"broken"),
    "/timing": (200, (("Server-Timing", "db;dur=3, total;dur=12.5"),), b""),
    "/loop": (302, (("Location", "/loop"),), b""),
    "/lost": (302, (), b""),
    "/304": (304, (), b""),
    "/empty-location": (302, (("Location", ""),), b""),
    "/odd-timing": (200, (("Server-Timing", "a;dur=nan, b;dur=1e400, c;dur=-inf, total;dur=1.2.3"),), b""),
    "/odd-cookie": (200, (("Set-Cookie", f"a=b; Max-Age={'9' * 5000}"), ("Set-Cookie", "c=d; Max-Age=--5")), b""),
    "/odd-location-1": (302, (("Location", "//["),), b""),
    "/odd-location-2": (302, (("Location", "http://[x]/"),), b""),
}


class Target:
    """A server that keeps what it was asked."""

    def __init__(self):
        self.requests = []
        self.connections = 0
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self):
        self._server.stop()

    def _serve(self, sock, _address):
        self.connections += 1
        stream = sock.makefile("rb")
        while line := stream.readline():
            method, target, _ = line.decode("latin-1").split(" ")
            fields = {}
            while (field := stream.readline().decode("latin-1").strip()) != "":
                name, _, value = field.partition(": ")
                fields.setdefault(name, []).append(value)
            body = stream.read(int(fields.get("content-length", ["0"])[0]))
            self.requests.append((method, target, {k: ", ".join(v) for k, v in fields.items()}, body))
            if target == "/drop":
                return
            gevent.sleep(0.05 if target == "/slow" else 0)
            sock.sendall(self._answer(method, target))

    def _answer(self, method, target):
        path = target.partition("?")[0]
        redirect = re.fullmatch(r"/to(\d+)", path)
        status, fields, content = ANSWERS.get(path, (200, (), b"ok"))
        if redirect:
            status, fields, content = int(redirect[1]), (("Location", "/json"),), b""
        lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in fields)]
        if status != 304:
            lines.append(f"Content-Length: {len(content)}")
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" or status == 304 else content)


@pytest.fixture
def target():
    server = Target()
    yield server
    server.stop()


class Walk:
    """A script run by some users one after another, and what came of it."""

    def __init__(self, target, flow, users=1, config=None, timeout_s=5.0, seed=1, payload=b"", **script):
        text = json.dumps({"config": {"target": target.url, **(config or {})}, "scenarios": [{"flow": flow}], **script})
        self.lines = []
        wall = WallOffset()
        recorder = Recorder(wall)
        dialer = Dialer(TimeLimits(int(timeout_s * 1e9), int(8e9)), wall)
        read_file = (lambda _: payload) if payload else _no_file
        parsed = parse_script([("s.json", text)], RunOptions(directory="/w"), read_file, Random(seed))
        self.program = CompiledScript(
            parsed,
            recorder,
            lambda: Connections(dialer),
            Random(seed),
            agent="me/1",
            write_line=self.lines.append,
        )
        self.before = self.program.run_before()
        for _ in range(users if self.before is None else 0):
            self.program.start_vu(now_ns())
        self.after = self.program.run_after()
        aggregate = recorder.report().aggregate
        self.counters = dict(aggregate.counters)
        self.samples = {name: summary.count for name, summary in aggregate.summaries.items()}
        self.asked = [(method, path) for method, path, _, _ in target.requests]
        self.errors = {k.removeprefix("errors."): n for k, n in self.counters.items() if k.startswith("errors.")}


def _no_file(path):
    raise FileNotFoundError(2, "No such file or directory", path)


def get(url, **more):
    return {"get": {"url": url, **more}}


def post(url, **more):
    return {"post": {"url": url, **more}}


def test_odd_fields_of_answers_are_ignored_or_fail_their_user(target):
    walk = Walk(target, [get("/odd-timing"), get("/odd-cookie"), get("/a")])
    assert not walk.errors
    assert walk.samples["plugins.metrics-by-endpoint.server-timing./odd-timing"] == 1
    assert not [name for name in walk.samples if name.startswith("server.")]
    for path in ("/odd-location-1", "/odd-location-2"):
        assert Walk(target, [get(path)]).errors == {"ERR_INVALID_URL": 1}


@pytest.mark.parametrize("host", ["a..b", ".", f"{'a' * 64}.example", "\u200b.example"])
def test_a_host_that_no_name_server_can_have_is_not_found(target, host):
    [error] = Walk(target, [get(f"http://{host}/")]).errors
    assert error in ("ENOTFOUND", "EAI_AGAIN", "ERR_INVALID_URL")


def test_a_finished_user_is_created_completed_and_not_failed(target):
    walk = Walk(target, [get("/a"), get("/b")], users=2)
    assert walk.asked == [("GET", "/a"), ("GET", "/b")] * 2
    wanted = {"vusers.created": 2, "vusers.created_by_name.0": 2, "vusers.completed": 2, "vusers.failed": 0}
    wanted |= {"http.requests": 4, "http.responses": 4, "http.codes.200": 4, "http.downloaded_bytes": 8}
    assert {name: walk.counters[name] for name in wanted} == wanted
    assert walk.counters["plugins.metrics-by-endpoint./a.codes.200"] == 2
    assert walk.samples["vusers.session_length"] == 2
    assert walk.samples["plugins.metrics-by-endpoint.response_time./b"] == 2


def test_each_user_has_one_connection_of_its_own(target):
    Walk(target, [get("/a"), {"parallel": [get("/b"), get("/c")]}], users=3)
    assert target.connections == 3


def test_a_connection_is_closed_where_the_script_asks_for_it(target):
    Walk(target, [get("/a", headers={"Connection": "close"}), get("/b", headers={"connection": "{{ missing }}"})])
    assert [fields["connection"] for _, _, fields, _ in target.requests] == ["close", "keep-alive"]
    assert target.connections == 2


def test_the_default_headers_are_sent_and_replaced(target):
    Walk(target, [get("/"), get("/", headers={"User-Agent": "x", "X-N": 5}, gzip=False)])
    first, second = (fields for _, _, fields, _ in target.requests)
    assert first["user-agent"] == "me/1" and first["accept-encoding"] == "gzip, deflate, br"
    assert first["connection"] == "keep-alive" and first["host"] == target.url.removeprefix("http://")
    assert second["user-agent"] == "x" and second["x-n"] == "5" and "accept-encoding" not in second


def test_a_script_may_ask_for_another_host_at_the_target(target):
    Walk(target, [get("/", headers={"Host": "shop.example"})])
    (_, _, fields, _) = target.requests[0]
    assert fields["host"] == "shop.example"  # and no second one, which would stand behind it


def test_header_values_may_be_lists_or_missing(target):
    Walk(target, [get("/", headers={"a": ["1", "2"], "b": "{{ missing }}", "c": "x{{ missing }}"})])
    fields = target.requests[0][2]
    assert fields["a"] == "1, 2" and "b" not in fields and fields["c"] == "xundefined"


@pytest.mark.parametrize(
    ("step", "body", "kind"),
    [
        (post("/", json={"n": "{{ n }}", "u": "{{ u }}", "t": "v{{ n }}"}), b'{"n":5,"t":"v5"}', "application/json"),
        (post("/", json="{{ o }}"), b'{"a":[1,null]}', "application/json"),
        (post("/", json={"a": 1}, headers={"Content-Type": "x/y"}), b'{"a":1}', "x/y"),
        (post("/", body="raw {{ n }}"), b"raw 5", None),
        (
            post("/", form={"a": "x y~", "b": None, "c": [1, 2], "d": "{{ u }}"}),
            b"a=x+y%7E&b=null&c=1%2C2&d=undefined",
            "application/x-www-form-urlencoded",
        ),
        (post("/"), b"", None),
    ],
)
def test_bodies_are_sent_as_artillery_sends_them(target, step, body, kind):
    Walk(target, [step], config={"variables": {"n": 5, "o": {"a": [1, None]}}})
    _, _, fields, sent = target.requests[0]
    assert sent == body and fields.get("content-type") == kind and fields["content-length"] == str(len(body))


def test_multipart_bodies_keep_their_order(target):
    Walk(
        target,
        [post("/", formData={"b": "{{ n }}", "a": {"value": "z", "contentType": "text/plain"}})],
        config={"variables": {"n": 5}},
    )
    _, _, fields, sent = target.requests[0]
    boundary = fields["content-type"].partition("boundary=")[2]
    assert sent.decode().split(f"--{boundary}") == [
        "",
        '\r\nContent-Disposition: form-data; name="b"\r\n\r\n5\r\n',
        '\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: text/plain\r\n\r\nz\r\n',
        "--\r\n",
    ]


def test_an_upload_may_be_named_by_a_template(target):
    flow = [post("/", formData={"f": {"fromFile": "up/{{ n }}.json"}})]
    walk = Walk(target, flow, config={"variables": {"n": "five"}}, payload=b"{}")
    _, _, _, sent = target.requests[0]
    assert b'filename="five.json"\r\nContent-Type: application/json\r\n\r\n{}\r\n' in sent
    assert not walk.errors


def test_an_upload_that_is_not_there_fails_its_user(target):
    flow = [post("/", formData={"f": {"fromFile": "{{ n }}.json"}})]
    assert Walk(target, flow, config={"variables": {"n": 5}}).errors == {"ENOENT": 1}
    assert not target.requests


def test_qs_replaces_the_query_and_urls_are_encoded(target):
    query = {"a": "x y", "l": [1, 2], "m": "{{ missing }}", "t": True, "n": None}
    walk = Walk(target, [get("/q?old=1", qs=query), get("/sp ace/é?x={{ missing }}#frag"), get("/%C3%A9")])
    assert [path for _, path in walk.asked] == [
        "/q?a=x+y&l=1&l=2&m=&t=true&n=",
        "/sp%20ace/%C3%A9?x=undefined",
        "/%C3%A9",
    ]


def test_basic_auth_is_sent(target):
    Walk(target, [get("/", auth={"user": "u{{ n }}", "pass": "p:w"})], config={"variables": {"n": 1}})
    assert target.requests[0][2]["authorization"] == "Basic " + base64.b64encode(b"u1:p:w").decode()


@pytest.mark.parametrize(
    ("status", "method", "body"), [(301, "POST", b"x"), (302, "POST", b"x"), (307, "POST", b"x"), (303, "GET", b"")]
)
def test_redirects_keep_method_and_body_but_for_303(target, status, method, body):
    walk = Walk(target, [post(f"/to{status}", body="x")])
    assert [(m, p, b) for m, p, _, b in target.requests] == [("POST", f"/to{status}", b"x"), (method, "/json", body)]
    assert walk.counters["http.requests"] == walk.counters["http.responses"] == 2
    assert walk.counters[f"plugins.metrics-by-endpoint./to{status}.codes.200"] == 1, (
        "endpoints count final answers only"
    )
    assert not any(name.endswith(f"codes.{status}") for name in walk.counters if name.startswith("plugins"))


def test_redirects_may_be_left_alone(target):
    walk = Walk(target, [get("/to301", followRedirect=False)])
    assert walk.asked == [("GET", "/to301")]
    assert walk.counters["plugins.metrics-by-endpoint./to301.codes.301"] == 1


@pytest.mark.parametrize("path", ["/304", "/lost", "/empty-location"])
def test_a_redirect_to_nowhere_is_final(target, path):
    counters = Walk(target, [get(path)]).counters
    assert counters["vusers.completed"] == counters["http.requests"] == 1


def test_eleven_requests_are_enough_of_redirects(target):
    walk = Walk(target, [get("/loop"), get("/never")])
    assert walk.errors == {"ERR_TOO_MANY_REDIRECTS": 1}
    assert walk.counters["http.requests"] == 11 and walk.counters["vusers.failed"] == 1
    assert walk.counters["plugins.metrics-by-endpoint./loop.errors.ERR_TOO_MANY_REDIRECTS"] == 1
    assert "vusers.completed" not in walk.counters and "vusers.session_length" not in walk.samples


def test_secrets_do_not_follow_to_another_host(target):
    other = Target()
    ANSWERS["/away"] = (302, (("Location", f"{other.url}/x"),), b"")
    try:
        headers = {"authorization": "s", "x-other": "1", "cookie": "c=1", "host": "shop.example"}
        Walk(target, [get("/away", headers=headers)])
        assert target.requests[0][2]["authorization"] == "s" and target.requests[0][2]["cookie"] == "c=1"
        fields = other.requests[0][2]
        assert "authorization" not in fields and "cookie" not in fields and fields["x-other"] == "1"
        assert fields["host"] == other.url.removeprefix("http://")
    finally:
        del ANSWERS["/away"]
        other.stop()


def test_cookies_are_kept_by_each_user_for_itself(target):
    Walk(target, [get("/a"), get("/cookie"), get("/b")], users=2)
    assert [fields.get("cookie") for _, _, fields, _ in target.requests] == [None, None, "sid=abc"] * 2


def test_a_request_may_bring_a_cookie_and_defaults_are_sent_from_the_first(target):
    Walk(target, [get("/a", cookie={"n": "{{ n }}"}), get("/b")], config={"variables": {"n": 5}})
    assert [fields.get("cookie") for _, _, fields, _ in target.requests] == ["n=5", None]
    target.requests.clear()
    Walk(target, [get("/a")], config={"http": {"defaults": {"cookie": {"d": "1"}}}})
    assert target.requests[0][2]["cookie"] == "d=1"


def test_captured_values_are_used_by_later_steps_with_their_types(target):
    flow = [get("/json", capture=[{"json": "$.id", "as": "id"}, {"json": "$.list", "as": "l", "multiple": False}])]
    Walk(target, [*flow, post("/x/{{ id }}", json={"id": "{{ id }}", "l": "{{ l }}"})])
    assert target.requests[1][1] == "/x/42" and target.requests[1][3] == b'{"id":42,"l":[1,2]}'


def test_a_failed_capture_ends_the_user_and_its_answer_is_counted(target):
    walk = Walk(target, [get("/json", capture=[{"json": "$.a", "as": "a"}, {"json": "$.b", "as": "b"}]), get("/never")])
    assert walk.errors == {"Failed capture or match": 1} and walk.asked == [("GET", "/json")]
    assert walk.counters["plugins.metrics-by-endpoint./json.codes.200"] == 1


def test_compressed_answers_are_looked_into_and_counted_compressed(target):
    walk = Walk(target, [get("/gzip", capture={"json": "$.z", "as": "z"}), {"log": "{{ z }}"}])
    assert walk.lines == ["7"] and walk.counters["http.downloaded_bytes"] == len(ANSWERS["/gzip"][2])


def test_statuses_are_no_errors(target):
    walk = Walk(target, [get("/500"), get("/b")])
    assert walk.counters["http.codes.500"] == 1 and walk.counters["vusers.completed"] == 1 and not walk.errors


def test_a_refused_connection_is_a_request_without_response(target):
    target.stop()
    walk = Walk(target, [get("/a"), get("/b")])
    assert walk.errors == {"ECONNREFUSED": 1}
    assert walk.counters["http.requests"] == 1 and "http.responses" not in walk.counters
    assert walk.counters["plugins.metrics-by-endpoint./a.errors.ECONNREFUSED"] == 1


def test_a_dropped_connection_and_a_late_answer_have_their_names(target):
    assert Walk(target, [get("/drop")]).errors == {"ECONNRESET": 1}
    assert Walk(target, [get("/slow")], timeout_s=0.02).errors == {"ETIMEDOUT": 1}


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (get("{{ missing }}"), "Invalid URL - undefined"),
        (get("ftp://x/"), "Invalid URL - ftp://x/"),
        (get("/", json={"a": 1}), "ERR_GOT_REQUEST_ERROR"),
        (post("/", json={"a": 1}, form={"a": 1}), "ERR_GOT_REQUEST_ERROR"),
        (post("/", body={"a": 1}), "ERR_GOT_REQUEST_ERROR"),
        (get("/", headers={"a": None}), "ERR_GOT_REQUEST_ERROR"),
        ({"think": "soon"}, "Invalid think time: soon"),
        ({"think": "{{ missing }}"}, "val is not a non-empty string or a valid number. val=undefined"),
        ({"thnik": 2}, "an URL must be specified"),
    ],
)
def test_what_cannot_be_done_fails_the_user_before_anything_is_sent(target, step, error):
    walk = Walk(target, [step])
    assert walk.errors == {error: 1} and walk.counters["vusers.failed"] == 1 and "http.requests" not in walk.counters


def test_if_true_and_probability_skip_without_trace(target):
    flow = [
        get("/a", ifTrue="n > 5"),
        get("/b", ifTrue="n == 5"),
        get("/c", ifTrue="n =="),
        get("/d", probability=0),
        get("/e", probability="100"),
    ]
    assert [p for _, p in Walk(target, flow, config={"variables": {"n": 5}}).asked] == ["/b", "/c", "/e"]


def test_probability_is_a_share_in_percent(target):
    walk = Walk(target, [{"loop": [get("/p", probability=30)], "count": 500}])
    assert len(walk.asked) == pytest.approx(150, abs=45)


def test_loops_count_from_zero_or_a_range_and_keep_their_last_values(target):
    inner = get("/{{ $loopCount }}/{{ $loopElement }}")
    flow = [
        {"loop": [inner], "count": 2},
        {"loop": [inner], "count": "2-4"},
        {"loop": [inner], "count": "{{ n }}"},
        inner,
    ]
    walk = Walk(target, flow, config={"variables": {"n": 1}})
    assert [p for _, p in walk.asked] == ["/0/0", "/1/0", "/2/2", "/3/2", "/0/0", "/1/0"]


@pytest.mark.parametrize(
    "loop",
    [
        {"count": 30_000},
        {"over": list(range(30_000))},
        {"count": "{{ n }}"},
        {"loop": [{"loop": [{"loop": [get("/", ifTrue="no")], "count": 31}], "over": list(range(31))}], "count": 31},
    ],
)
def test_loops_that_send_nothing_let_others_run(target, loop):
    turns = []
    other = gevent.spawn(lambda: [turns.append(gevent.sleep(0)) for _ in range(1000)])
    Walk(target, [{"loop": [get("/", ifTrue="no")], **loop}], config={"variables": {"n": 30_000}})
    other.kill()
    assert len(turns) >= 20
    assert target.requests == []


def test_loops_go_over_lists_variables_and_nothing(target):
    flow = [
        {"loop": [get("/{{ i }}/{{ e.x }}")], "over": [{"x": 1}, {"x": 2}], "loopValue": "i", "loopElement": "e"},
        {"loop": [get("/{{ $loopElement }}")], "over": "list"},
        {"loop": [get("/never")], "over": "missing"},
        get("/{{ $loopCount }}/{{ $loopElement }}"),
    ]
    walk = Walk(target, flow, config={"variables": {"list": [["a", "b"]]}})
    assert [p for _, p in walk.asked] == ["/0/1", "/1/2", "/a", "/b", "/0/0"]


def test_parallel_branches_share_the_connection_and_think_at_once(target):
    started = time.monotonic()
    walk = Walk(
        target,
        [
            {"parallel": [*[{"think": "500ms"}] * 6, get("/a", capture={"regexp": "ok", "as": "v"})]},
            {"log": "{{ v }}"},
        ],
    )
    assert time.monotonic() - started < 2.9
    assert walk.lines == ["ok"]


@pytest.mark.slow
def test_the_first_error_in_parallel_fails_the_user(target):
    walk = Walk(target, [{"parallel": [get("{{ missing }}"), {"think": 5}]}])
    assert walk.errors == {"Invalid URL - undefined": 1}


def test_a_fractional_think_is_waited(target):
    started = time.monotonic()
    Walk(target, [{"think": 0.05}])
    assert time.monotonic() - started >= 0.05


def test_jitter_is_a_share_or_milliseconds():
    rng = Random(1)
    assert all(0.8 <= jittered(1, "20%", rng) <= 1.2 for _ in range(100))
    assert all(0.95 <= jittered(1, 50, rng) <= 1.05 for _ in range(100))
    assert jittered(1, "lots", rng) == 1
    assert jittered(1, "9" * 5000, rng) >= 0 and jittered(1, f"{'9' * 400}%", rng) >= 0


@pytest.mark.parametrize(
    ("count", "walked"),
    [
        (3, (0, 3)), ("3", (0, 3)), ("2-4", (2, 4)), (-1, (0, -1)), ("-1", (0, -1)), ("x", (0, 0)), (None, (0, 0)),
        (float("inf"), (0, 0)), (float("nan"), (0, 0)), ("Infinity", (0, 0)), ("1e999", (0, 0)), ("2-1e999", (0, 0)),
        ("9e999-5", (0, 0)), (True, (0, 0)), ("1e400-2", (0, 0)), (f"{'9' * 400}-2", (0, 0)),
    ],
)  # fmt: skip
def test_counts_of_loops(count, walked):
    assert rounds(count) == walked


def test_variables_that_are_lists_are_sampled_by_each_user(target):
    walk = Walk(target, [{"log": "{{ v }}"}], users=40, config={"variables": {"v": ["a", "b"]}})
    assert set(walk.lines) == {"a", "b"}


def test_each_user_has_one_uuid(target):
    walk = Walk(target, [{"log": "{{ $uuid }} {{ $uuid }}"}], users=2)
    first, second = (line.split() for line in walk.lines)
    assert first[0] == first[1] != second[0]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first[0])


def test_scenarios_are_picked_by_weight(target):
    scenarios = [{"name": "a", "weight": 3, "flow": []}, {"flow": []}, {"weight": 0, "flow": []}]
    walk = Walk(target, [], users=400, scenarios=scenarios)
    assert walk.counters["vusers.created_by_name.a"] == pytest.approx(300, abs=40)
    assert walk.counters["vusers.created_by_name.a"] + walk.counters["vusers.created_by_name.1"] == 400


def test_plain_requests_of_sections_are_not_in_the_metrics_either(target):
    section = {"flow": [get("/json"), get("/json")]}
    walk = Walk(target, [get("/json")], users=1, before=section, after=section)
    assert len(walk.asked) == 5
    assert walk.counters["http.requests"] == walk.counters["http.responses"] == 1
    assert walk.before is None and walk.after is None


def test_before_gives_its_variables_to_all_and_is_not_in_the_metrics(target):
    section = {"flow": [get("/json", capture={"json": "$.token", "as": "token"})]}
    walk = Walk(target, [get("/{{ token }}")], users=2, before=section, after={"flow": [get("/after/{{ token }}")]})
    assert [p for _, p in walk.asked] == ["/json", "/abc", "/abc", "/after/abc"]
    assert walk.counters["http.requests"] == 2 and walk.before is None and walk.after is None


def test_a_failing_before_is_told(target):
    walk = Walk(target, [get("/a")], before={"flow": [get("/json", capture={"json": "$.no", "as": "x"})]})
    assert walk.before == "Failed capture or match" and not walk.errors


EXPECT = {"plugins": {"expect": {"outputFormat": "silent"}}}


def test_expectations_are_counted_and_do_not_stop_the_user(target):
    walk = Walk(
        target, [get("/500", expect=[{"statusCode": 200}, {"hasHeader": "content-length"}]), get("/b")], config=EXPECT
    )
    assert walk.counters["plugins.expect.failed.statusCode"] == walk.counters["plugins.expect.failed"] == 1
    assert walk.counters["plugins.expect.ok.hasHeader"] == 1 and walk.program.expectation_failed
    assert walk.counters["vusers.completed"] == 1


def test_failed_expectations_may_be_errors(target):
    config = {"plugins": {"expect": {"outputFormat": "silent", "reportFailuresAsErrors": True}}}
    walk = Walk(target, [get("/500", expect={"statusCode": 200})], config=config)
    assert walk.errors == {f"Failed expectations for request {target.url}/500": 1}
    assert not any(name.startswith("plugins.metrics-by-endpoint") for name in walk.counters)


def test_apdex_and_extended_metrics_and_server_timing(target):
    config = {"plugins": {"apdex": {"threshold": 1000}}, "http": {"extendedMetrics": True}}
    walk = Walk(target, [get("/timing")], config=config)
    assert {k: n for k, n in walk.counters.items() if k.startswith("apdex")} == {
        "apdex.satisfied": 1,
        "apdex.tolerated": 0,
        "apdex.frustrated": 0,
    }
    assert walk.samples["http.tcp"] == walk.samples["http.total"] == walk.samples["http.dns"] == 1
    assert "http.tls" not in walk.samples
    assert walk.samples["plugins.metrics-by-endpoint.server-timing./timing"] == walk.samples["server.db"] == 1


@pytest.mark.parametrize(
    ("options", "step", "name"),
    [
        ({}, get("/u/{{ n }}"), "/u/{{ n }}"),
        ({}, get("/u?q=1"), "/u?q=1"),
        ({"stripQueryString": True}, get("/u?q=1", name="x {{ n }}"), "/u (x {{ n }})"),
        ({"useOnlyRequestNames": True}, get("/u", name="x"), "x"),
        ({"groupDynamicURLs": False}, get("/u/{{ n }}", name="x {{ n }}"), "/u/5 (x 5)"),
    ],
)
def test_endpoints_are_named_as_the_plugin_is_told(target, options, step, name):
    config = {"variables": {"n": 5}, "plugins": {"metrics-by-endpoint": {"metricsNamespace": "e", **options}}}
    walk = Walk(target, [step], config=config)
    assert walk.counters[f"e.{name}.codes.200"] == 1


def test_unnamed_requests_may_be_left_out(target):
    walk = Walk(target, [get("/u")], config={"plugins": {"metrics-by-endpoint": {"ignoreUnnamedRequests": True}}})
    assert not any(name.startswith("plugins") for name in walk.counters)


def test_a_trace_is_started_when_asked_for(target):
    Walk(target, [get("/")], config={"http": {"distributedTracing": {"traceIdPrefix": "BEEF", "sampled": False}}})
    assert re.fullmatch(r"00-beef[0-9a-f]{28}-[0-9a-f]{16}-00", target.requests[0][2]["traceparent"])


def test_a_trace_and_a_length_of_the_scripts_own_are_sent_alone(target):
    own = "00-11111111111111111111111111111111-2222222222222222-01"
    headers = {"Content-Length": "{{ n }}", "Traceparent": own}
    walk = Walk(
        target,
        [post("/echo", body="hello", headers=headers)],
        config={"http": {"distributedTracing": True}, "variables": {"n": 5}},
    )
    (asked,) = target.requests
    assert asked[2]["content-length"] == "5"
    assert asked[2]["traceparent"] == own
    assert asked[3] == b"hello"
    assert "errors" not in str(walk.counters)


def test_fake_data_makes_plausible_values(target):
    walk = Walk(
        target,
        [{"log": "{{ $internetEmail() }}|{{ $randNumber() }}"}],
        config={"plugins": {"fake-data": {"numberInt": {"min": 3, "max": 3}}}},
    )
    assert re.fullmatch(r"[\w.]+@example\.\w+\|3", walk.lines[0])


def test_payload_rows_are_taken_in_turn_by_users_alone(target):
    config = {"payload": {"path": "p.csv", "fields": ["a", "b"], "order": "sequence"}}
    walk = Walk(
        target, [get("/{{ a }}/{{ b }}")], 3, config, payload=b"x,1\n007,2\n", before={"flow": [{"log": "{{ a }}"}]}
    )
    assert [p for _, p in walk.asked] == ["/x/1", "/7/2", "/x/1"]
    assert walk.lines == ["undefined"]


def test_variables_win_over_payload_rows(target):
    config = {"payload": {"path": "p.csv", "fields": ["a"]}, "variables": {"a": "v"}}
    assert Walk(target, [get("/{{ a }}")], 1, config, payload=b"x\n").asked == [("GET", "/v")]
