"""Functions of a script's own, in Python: found before anything is sent, called as promised, harmless when they fail."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from loadgen.clock import WallOffset, now_ns
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import TimeLimits
from loadgen.recorder import Recorder
from loadgen.script.model import ScriptErrors
from loadgen.script.parse import RunOptions, parse_script
from loadgen.script.processor import ProcessorError, load
from loadgen.vu.program import CompiledScript
from tests.support.paths import EXAMPLES, ROOT
from tests.support.server_process import wait_until


class Run:
    """Users of a script with a processor against a server, one after another."""

    def __init__(self, server, source, scenario, users=1, **config):
        script = parsed(source, scenario, target=server.url, **config)
        wall, self.warnings = WallOffset(), []
        recorder, dialer = Recorder(wall), Dialer(TimeLimits(), wall)
        program = CompiledScript(
            script, recorder, lambda: Connections(dialer), Random(1),
            agent="me/1", write_line=lambda _: None, warn=self.warnings.append,
        )  # fmt: skip
        for _ in range(users):
            program.start_vu(now_ns())
        self.counters = dict(recorder.report().aggregate.counters)
        self.rates = recorder.report().aggregate.rates
        self.samples = {k: s.mean for k, s in recorder.report().aggregate.summaries.items()}
        self.errors = {k.removeprefix("errors."): n for k, n in self.counters.items() if k.startswith("errors.")}
        self.asked = [head.split(b"\r\n")[0].decode("latin-1").rsplit(" ", 1)[0] for head in server.heads]


def parsed(source, scenario, path="own.py", **config):
    scenario = {"flow": scenario} if isinstance(scenario, list) else scenario
    text = json.dumps(
        {"config": {"target": "http://h", "processor": path, **config}, "scenarios": [scenario]}, indent=1
    )

    def read(_):
        if source is None:
            raise FileNotFoundError(2, "No such file or directory")
        return source.encode()

    return parse_script([("s.json", text)], RunOptions(directory="/w"), read)


def problems(source, scenario, **options):
    with pytest.raises(ScriptErrors) as caught:
        parsed(source, scenario, **options)
    return [str(p) for p in caught.value.problems]


@pytest.fixture
def server(serve, ok_answer):
    return serve(ok_answer(b'{"id": 7, "parts": [1, 2, 3]}'))


def get(url, **more):
    return {"get": {"url": url, **more}}


def test_a_function_finds_what_the_script_itself_does_not_name(server):
    source = """
def note(user):
    user.variables["id"] = user.variables["$uuid"]
"""
    run = Run(server, source, [{"function": "note"}, get("/{{ id }}")], users=2)
    first, second = run.asked
    assert len(first) == len("GET /") + 36
    assert first != second


def test_a_function_before_a_request_may_change_all_of_it(server):
    source = """
def change(request, user):
    request.method = "PUT"
    request.url += "/{{ who }}"
    request.headers["x-own"] = "{{ who }}!"
    request.json = {"n": user.variables["n"] + 1}
    user.variables["who"] = "ada"
"""
    Run(server, source, [get("/a", beforeRequest="change", headers={"x-kept": "1"})], variables={"n": 1})
    head = server.heads[0].decode()
    assert head.startswith("PUT /a/ada HTTP/1.1\r\n")
    assert "x-own: ada!" in head and "x-kept: 1" in head and "content-length: 7" in head


def test_a_change_is_for_one_request_only(server):
    source = """
def change(request, user):
    request.headers["x-n"] = str(user.variables["$loopCount"])
    if user.variables["$loopCount"] == 0:
        request.url = "/first"
"""
    run = Run(server, source, [{"loop": [get("/a", beforeRequest="change")], "count": 3}])
    assert run.asked == ["GET /first", "GET /a", "GET /a"]
    assert [h.decode().split("x-n: ")[1][0] for h in server.heads] == ["0", "1", "2"]


def test_bytes_of_a_function_are_sent_as_they_are(server):
    source = "def raw(request, user):\n    request.body = b'\\x00\\xff\\r\\n\\r\\n'\n"
    flow = [{"post": {"url": "/a", "beforeRequest": "raw", "capture": {"json": "$.id", "as": "id"}}}]
    Run(server, source, flow)
    assert b"content-length: 6" in server.heads[0] and b"content-type" not in server.heads[0]
    wait_until(lambda: len(server.heads) == 2, "the server has read the body")
    assert server.heads[1] == b"\x00\xff"  # this server takes the body for another head


def test_hooks_of_the_scenario_come_first_and_hold_for_every_request(server):
    source = """
def mark(name):
    def hook(*given):
        given[-1].variables.setdefault("seen", []).append(name)
    return hook
a, b, c, d, first, last = map(mark, ("a", "b", "c", "d", "first", "last"))
def tell(user):
    user.count("seen " + " ".join(user.variables["seen"]), 1)
"""
    flow = [get("/1", beforeRequest=["b"], afterResponse="d"), get("/2")]
    scenario = {"beforeScenario": "first", "afterScenario": ["last", "tell"], "beforeRequest": "a",
                "afterResponse": "c", "flow": flow}  # fmt: skip
    assert "seen first a b c d a c last" in Run(server, source, scenario).counters


def test_the_name_of_a_hook_may_be_a_template(server):
    source = """
def one(request, user): request.headers["x-by"] = "one"
def two(request, user): request.headers["x-by"] = "two"
def seen(request, response, user): user.count("seen", 1)
"""
    flow = [{"loop": [get("/a", beforeRequest="{{ $loopElement }}", afterResponse="{{ after }}")],
             "over": ["one", "two", "three"]}]  # fmt: skip
    run = Run(server, source, flow, variables={"after": "seen"})
    assert [b"x-by: one" in h or b"x-by: two" in h for h in server.heads] == [True, True, False]
    assert run.counters["seen"] == 3
    assert run.warnings == [
        "no function `three` is called for `{{ $loopElement }}`: the processor has none of this name"
    ]


def test_a_function_before_a_request_may_change_what_is_not_in_its_head(server):
    source = """
def change(request, user):
    request.qs = {**request.qs, "page": "{{ n }}"}
    request.cookie["sid"] = "s{{ n }}"
    request.auth = {"user": "ada", "pass": "x"}
    request.name = "signed"
"""
    run = Run(server, source, [get("/a", qs={"q": 1}, beforeRequest="change")], variables={"n": 2})
    head = server.heads[0].decode()
    assert head.startswith("GET /a?q=1&page=2 HTTP/1.1\r\n")
    assert "cookie: sid=s2" in head and "authorization: Basic YWRhOng=" in head
    assert run.counters["plugins.metrics-by-endpoint./a (signed).codes.200"] == 1


def test_a_function_before_a_request_may_add_a_file_to_a_form(serve):
    def answer(sock, head):
        # To this server each part of the form is a head. Answering before the last one, it might lose what follows.
        if b'name="who"' in head:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = serve(answer)
    source = """
def change(request, user):
    request.form_data["file"] = ("a.csv", b"1,2", "text/csv")
    request.form_data["who"] = "{{ n }}"
"""
    Run(
        server,
        source,
        [{"post": {"url": "/a", "formData": {"kept": "k"}, "beforeRequest": "change"}}],
        variables={"n": 2},
    )
    assert b'name="who"' in server.heads[-1]
    body = b"\r\n\r\n".join(server.heads[1:])
    assert b'name="kept"' in body and b'name="file"; filename="a.csv"\r\nContent-Type: text/csv' in body


def test_a_function_before_a_request_may_keep_a_redirect_and_shorten_the_wait(serve):
    def answer(sock, head):
        if b" /moved" in head:
            sock.sendall(b"HTTP/1.1 302 X\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n")

    source = """
def stay(request, user): request.follow_redirect = False
def hurry(request, user): request.timeout_s = 0.05
"""
    server = serve(answer)
    run = Run(server, source, [get("/moved", beforeRequest="stay"), get("/silent", beforeRequest="hurry")])
    assert run.asked == ["GET /moved", "GET /silent"]
    assert run.errors == {"ETIMEDOUT": 1}


def test_both_hooks_of_a_request_share_its_id_and_see_its_name(server):
    source = """
began = {}
def before(request, user): began[request.id] = request.name
def after(request, response, user):
    user.count(f"{request.name} {began.pop(request.id)} {len(began)}", 1)
"""
    flow = [get("/a", name="page {{ n }}", beforeRequest="before", afterResponse="after")]
    assert Run(server, source, flow, users=2, variables={"n": 5}).counters["page 5 page {{ n }} 0"] == 2


def test_a_function_after_a_response_sees_its_bytes_and_times(server):
    source = """
def look(request, response, user):
    times = response.timings
    assert 0 <= times.dns + times.tcp + times.tls + times.first_byte + times.download <= times.total < 10_000
    user.count(f"{response.body[:8]} {times.tcp > 0}", 1)
"""
    counters = Run(server, source, [get("/a", afterResponse="look"), get("/b", afterResponse="look")]).counters
    assert counters["b'{\"id\": 7' True"] >= 1


def test_a_function_after_a_response_sees_the_request_as_it_was_sent(server):
    source = """
def look(request, response, user):
    assert request.json is request.form is request.form_data is request.qs is request.auth is None
    user.count(f"{request.method} {request.url[-2:]} {request.body} {request.name} {bool(request.id)}", 1)
"""
    flow = [{"post": {"url": "/a", "form": {"n": "{{ n }}"}, "name": "add", "afterResponse": "look"}}]
    assert Run(server, source, flow, variables={"n": 5}).counters["POST /a b'n=5' add True"] == 1


def test_a_user_knows_its_scenario_and_counts_rates(server):
    source = """
def note(user):
    user.count(f"in {user.scenario}", 1)
    user.rate("orders.rate")
"""
    run = Run(server, source, {"name": "shop", "flow": [{"function": "note"}, {"function": "note"}]})
    assert run.counters["in shop"] == 2
    assert run.rates["orders.rate"].per_second == 2


def test_templates_may_call_marked_functions(server):
    source = """
from loadgen.processor import template_function
@template_function
def order(low=1, high=9): return f"o{low}-{high}"
@template_function
def broken(): raise KeyError("k")
def hidden(): return "never"
"""
    run = Run(server, source, [get("/{{ $order() }}/{{ $order(2, 3) }}"), get("/{{ $broken() }}")])
    assert run.asked == ["GET /o1-9/o2-3"]
    assert run.errors == {"KeyError: 'k'": 1}
    assert run.warnings == ["/w/own.py:6: $broken: KeyError: 'k'"]
    warned = [str(w) for w in parsed(source, [get("/{{ $hidden() }}")]).warnings]
    assert len(warned) == 1 and "no template function `$hidden`" in warned[0]


def test_the_exit_code_may_be_chosen(server, tmp_path):
    (tmp_path / "own.py").write_text("def leave(user): user.exit_code(7)\n")
    script = {"config": {"target": server.url, "processor": "own.py"}, "scenarios": [{"flow": [{"function": "leave"}]}]}
    (tmp_path / "s.json").write_text(json.dumps(script))
    done = subprocess.run(
        [sys.executable, "-m", "loadgen", "run", "-q", "s.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 7


def test_what_a_function_sees_after_a_response(server):
    source = """
def look(request, response, user):
    user.sample("parts", len(response.json["parts"]))
    user.count(f"{request.method} {request.headers['x-a']} {response.status} {response.headers['content-length']}", 2)
"""
    run = Run(server, source, [get("/x", headers={"X-A": "{{ n }}"}, afterResponse="look")], variables={"n": 5})
    assert run.counters["GET 5 200 29"] == 2
    assert run.samples["parts"] == 3


def test_a_step_a_condition_and_a_loop_call_functions(server):
    source = """
def start(user): user.variables["left"] = 3
def left(user):
    user.variables["left"] -= 1
    return user.variables["left"]
def odd(user): return user.variables["left"] % 2
"""
    flow = [{"function": "start"}, {"loop": [get("/{{ left }}"), get("/odd", ifTrue="odd")], "whileTrue": "left"}]
    assert Run(server, source, flow).asked == ["GET /3", "GET /odd", "GET /2", "GET /1", "GET /odd"]


def test_a_loop_goes_round_once_before_it_asks(server):
    run = Run(server, "def never(user): return False", [{"loop": [get("/a")], "whileTrue": "never", "count": 5}])
    assert run.asked == ["GET /a"]


def test_a_capture_by_a_function(server):
    source = "def total(response, user): return sum(response.json['parts'])"
    flow = [get("/a", capture={"function": "total", "as": "sum"}), get("/{{ sum }}")]
    assert Run(server, source, flow).asked[1] == "GET /6"


@pytest.mark.parametrize(("strict", "asked"), [({}, 1), ({"strict": False}, 2)])
def test_a_capture_that_gives_nothing_fails_as_others_do(server, strict, asked):
    flow = [get("/a", capture={"function": "none", "as": "v", **strict}), get("/b")]
    run = Run(server, "def none(response, user): return ''", flow)
    assert len(run.asked) == asked
    assert run.errors == ({} if strict else {"Failed capture or match": 1})


def test_a_raised_fail_names_the_error_and_tells_on_error(server):
    source = """
from loadgen.processor import Fail
def stop(user): raise Fail("sold out")
def note(error, user): user.count("noted " + error, 1)
"""
    run = Run(server, source, {"flow": [{"function": "stop"}, get("/never")], "onError": "note"})
    assert run.errors == {"sold out": 1}
    assert run.counters["noted sold out"] == run.counters["vusers.failed"] == 1
    assert not run.asked and not run.warnings


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("count('x', None)", "TypeError: 'NoneType' object cannot be interpreted as an integer"),
        ("count('x', '3')", "TypeError: 'str' object cannot be interpreted as an integer"),
        ("count('x', 1.5)", "TypeError: 'float' object cannot be interpreted as an integer"),
        ("count('x', -1)", "ValueError: a counter can be given 0 to 2**53, not -1"),
        ("count('x', 10**30)", f"ValueError: a counter can be given 0 to 2**53, not {10**30}"),
        ("count(b'x', 1)", "TypeError: the name of a metric is a text, not b'x'"),
        ("count(['x'], 1)", "TypeError: the name of a metric is a text, not ['x']"),
        ("sample(b'x', 1)", "TypeError: the name of a metric is a text, not b'x'"),
        ("sample('x', '3')", "TypeError: '<' not supported between instances of 'float' and 'str'"),
        ("rate(5)", "TypeError: the name of a metric is a text, not 5"),
    ],
)
def test_a_wrong_figure_fails_its_user_with_its_line_and_the_report_is_made(server, call, said):
    run = Run(server, f"def note(user):\n    user.count('noted')\n    user.{call}", [{"function": "note"}])
    assert run.errors == {said: 1}
    assert run.warnings == [f"/w/own.py:3: note: {said}"]
    assert run.counters["noted"] == run.counters["vusers.failed"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("method = None", "request.method must be a text, not None"),
        ("headers = None", "request.headers must be an object whose keys are texts, not None"),
        ("headers = [('a', 'b')]", "request.headers must be an object whose keys are texts, not [('a', 'b')]"),
        ("headers[5] = 'x'", "request.headers must be an object whose keys are texts, not {5: 'x'}"),
        ("cookie = 'a=b'", "request.cookie must be an object whose keys are texts, not 'a=b'"),
        ("qs = 'a=b'", "request.qs must be an object whose keys are texts, not 'a=b'"),
        ("form = [1]", "request.form must be an object whose keys are texts, not [1]"),
        ("form_data = 7", "request.form_data must be an object whose keys are texts, not 7"),
        ("auth = 'tiki'", "request.auth must be a user and a password, not 'tiki'"),
        ("timeout_s = '3'", "request.timeout_s must be a number of seconds above 0, not '3'"),
        ("timeout_s = float('nan')", "request.timeout_s must be a number of seconds above 0, not nan"),
        ("body = 5", None),
        ("url = None", None),
    ],
)
def test_a_wrong_request_is_told_with_the_function_that_made_it(server, change, said):
    source = f"def fine(request, user): pass\ndef bad(request, user): request.{change}"
    run = Run(server, source, [get("/a", beforeRequest=["fine", "bad"])], users=2)
    assert run.counters["vusers.failed"] == 2 and not run.asked
    if said is not None:
        assert run.errors == {said: 2} and run.warnings == [f"bad: {said}"] * 2


def test_inside_others_a_value_that_json_does_not_have_is_its_text(server):
    source = "def note(user): user.variables.update(all=[{8}])"
    assert Run(server, source, [{"function": "note"}, get("/x{{ all }}")]).asked == ["GET /x[%22%7B8%7D%22]"]


def test_a_function_that_exits_fails_its_user_alone(server):
    run = Run(server, "import sys\ndef leave(user): sys.exit(5)", [{"function": "leave"}], users=2)
    assert run.errors == {"SystemExit: 5": 2} and run.warnings == ["/w/own.py:2: leave: SystemExit: 5"] * 2


def test_an_error_may_be_named_by_anything(server):
    source = "from loadgen.processor import Fail\ndef stop(user): raise Fail(404)"
    assert Run(server, source, [{"function": "stop"}]).errors == {"404": 1}


def test_any_other_exception_fails_its_user_alone_and_is_told_with_its_place(server):
    source = "def bad(request, user):\n    if user.variables.pop('n', None) is None:\n        return {}['token']\n"
    run = Run(server, source, [{"loop": [get("/a", beforeRequest="bad")], "count": 2}], users=2, variables={"n": 1})
    assert run.errors == {"KeyError: 'token'": 2}
    assert run.warnings == ["/w/own.py:3: bad: KeyError: 'token'"] * 2
    assert run.asked == ["GET /a", "GET /a"]


def test_an_error_in_on_error_changes_nothing(server):
    source = "def stop(user): 1 / 0\ndef note(error, user): return user.nonsense"
    run = Run(server, source, {"flow": [{"function": "stop"}], "onError": ["note"]})
    assert run.errors == {"ZeroDivisionError: division by zero": 1}
    assert len(run.warnings) == 2 and "note: AttributeError" in run.warnings[1]


def test_missing_and_unfit_functions_are_all_told_before_anything_is_sent():
    source = "def sign(request, user): ...\nasync def slow(user): ...\ndef few(user): ..."
    flow = [get("/", beforeRequest="sing", afterResponse="few"), {"function": "slow"},
            {"loop": [get("/")], "whileTrue": "nowhere"}, get("/", capture={"function": "gone", "as": "x"})]  # fmt: skip
    told = problems(source, {"flow": flow, "onError": "sign", "afterScenario": "few"})
    messages = [line.split(": ", 2)[2] for line in told]
    assert messages == [
        "no function `sing` in /w/own.py (did you mean `sign`?)",
        "`few` does not take what afterResponse gives: (request, response, user)",
        "`slow` is async: functions are called and must return",
        "no function `nowhere` in /w/own.py",
        "no function `gone` in /w/own.py",
    ]
    assert "scenarios[0].flow[0].get.beforeRequest" in told[0]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(:\n", "/w/own.py:1: invalid syntax"),
        (
            "\nimport no_such_module_of_anyone",
            "/w/own.py:2: ModuleNotFoundError: No module named 'no_such_module_of_anyone'",
        ),
        ("x = 1 / 0", "/w/own.py:1: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", "/w/own.py:2: SystemExit: 3"),
        (None, "cannot read own.py: No such file or directory"),
    ],
)
def test_a_processor_that_cannot_be_loaded_is_told_with_its_place(source, said):
    assert problems(source, [get("/", beforeRequest="f")]) == [f"s.json:4:3: config.processor: {said}"]


def test_a_javascript_processor_stays_refused_with_every_call():
    told = problems("", {"flow": [{"function": "login"}], "beforeScenario": "setup"}, path="./own.js")
    assert [('"setup"' in line, '"login"' in line) for line in sorted(told, key=lambda t: "login" in t)] == [
        (True, False),
        (False, True),
    ]


EXAMPLES_OF_THE_PAGE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "processor.md").read_text(), re.DOTALL)


def test_the_examples_of_the_page_do_what_it_says(server):
    source = "\n".join(EXAMPLES_OF_THE_PAGE)
    flow = [
        {"function": "choose_product"},
        {"post": {"url": "/orders/{{ product }}/{{ $order_number() }}", "json": {"a": 1}, "name": "order",
                  "beforeRequest": ["sign", "begin"], "afterResponse": ["check_items", "measure"]}},
        {"function": "wait_a_little"},
        {"loop": [get("/jobs/1", afterResponse="note_state")], "whileTrue": "not_done"},
    ]  # fmt: skip
    scenario = {"name": "shop", "beforeScenario": "start_session", "onError": "tell", "flow": flow}
    run = Run(server, source, scenario, variables={"secret": "s", "attempts": 2})
    assert not run.errors and not run.warnings
    assert sum(b"GET /jobs/1" in head for head in server.heads) == 2
    assert b"x-signature: " in server.heads[0].lower()
    assert run.counters["orders with 3 parts"] == 1
    assert "order.time" in run.samples


def test_a_processor_may_be_sent_to_another_process():
    processor = load("/w/flow.py", b"def f(user): return 42")
    assert pickle.loads(pickle.dumps(processor)).functions["f"](None) == 42


def test_a_processor_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_the_processor.py").write_text("value = 3")
    path = tmp_path / "main.py"
    assert load(str(path), b"from beside_the_processor import value\ndef f(): ...").functions.keys() == {"f"}
    with pytest.raises(ProcessorError, match=r"main\.py:1: ImportError"):
        load(str(path), b"from beside_the_processor import other")


def test_the_example_shortens_and_follows_three_links_a_user(serve, ok_answer):
    def answer(connection, head):
        if head.startswith(b"POST"):
            connection.sendall(b'HTTP/1.1 201 Created\r\nContent-Length: 15\r\n\r\n{"code": "abc"}')
        else:
            connection.sendall(b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")

    server = serve(answer)
    text = (EXAMPLES / "checkout.yml").read_text()
    options = RunOptions(target=server.url, directory=str(EXAMPLES))
    script = parse_script([("checkout.yml", text)], options, lambda path: Path(path).read_bytes())
    wall = WallOffset()
    recorder, dialer = Recorder(wall), Dialer(TimeLimits(), wall)
    program = CompiledScript(script, recorder, lambda: Connections(dialer), Random(1), agent="me",
                      write_line=lambda _: None)  # fmt: skip
    program.start_vu(now_ns())
    counters = recorder.report().aggregate.counters
    assert counters["links.created"] == 3 and counters["http.codes.301"] == 3 and counters["vusers.completed"] == 1
    assert sum(b"GET /abc" in head for head in server.heads) == 3
