"""Parts of a script that can never do what they seem to do are told, each with its place."""

import pytest

from loadgen.script.model import ScriptErrors
from loadgen.script.parse import RunOptions, parse_script

TOP = "config: {target: http://h, %s}\nscenarios: [{flow: [{get: {url: / %s}}]}]"


def read(text, payload=b""):
    return parse_script([("s.yml", text)], RunOptions(directory="/w"), lambda _: payload)


def warnings(text, payload=b""):
    return [str(warning) for warning in read(text, payload).warnings]


@pytest.mark.parametrize(
    ("ensure", "said"),
    [
        ("[{p95: 1}]", "config.ensure: makes no check"),
        ("{errorRate: 1}", "config.ensure.errorRate: `errorRate` has no effect (did you mean `maxErrorRate`?)"),
        ("{p95: '< 1500'}", "config.ensure.p95: the limit must be a number, not '< 1500': the check always fails"),
        ("{maxErrorRate: low}", "config.ensure.maxErrorRate: the limit must be a number"),
        ("{thresholds: {a: 1}}", "config.ensure.thresholds: must be a list"),
        ("{thresholds: [p95]}", "config.ensure.thresholds[0]: is no check"),
        ("{thresholds: [{'http.codes.5xx': 1}]}", "codes are counted one by one, as `http.codes.500`"),
        ("{thresholds: [{'http.response_time': 1}]}", "is a summary: name one of its figures"),
        ("{thresholds: [{'htpp.requests': 1}]}", "(did you mean `http.requests`?)"),
        ("{thresholds: [{p95: 1}]}", "config.ensure.thresholds[0].p95: no run has this metric"),
        ("{thresholds: [{'http.requests': 1, 'http.responses': 2}]}", "http.responses: is not checked"),
        ("{conditions: [{expression: 'http.requests <'}]}", "the check always fails"),
        ("{conditions: [{strict: false}]}", "is missing: the check always fails"),
        ("{maxErrorRate: -1}", "no figure is below -1: the check always fails"),
        ("{thresholds: [{'http.respons_time.p95': 1}]}", "(did you mean `http.response_time.p95`?)"),
        ("{conditions: [{expression: 'http.respons_time.p95 < 1'}]}", "(did you mean `http.response_time.p95`?)"),
        ("{conditions: [{expression: http.response_time.p95}]}", "compares nothing"),
        ("{conditions: ['a < 1']}", "config.ensure.conditions[0]: is no check"),
    ],
)
def test_an_invalid_check_is_reported(ensure, said):
    found = warnings(TOP % (f"plugins: {{ensure: {{}}}}, ensure: {ensure}", ""))
    assert any(said in warning for warning in found), found


@pytest.mark.parametrize(
    "ensure",
    [
        "{p95: 200, maxErrorRate: 1, max: '500'}",
        "{thresholds: [{'http.response_time.p95': 200}, {'vusers.failed': 1}, {apdex: 1}]}",
        "{thresholds: [{'errors.ETIMEDOUT': 1}, {'http.codes.500': '1'}]}",
        "{conditions: [{expression: 'http.response_time.p95 < 250 and http.request_rate > 1000', strict: false}]}",
        "{conditions: [{expression: 'vusers.created_by_name.My scenario > 1'}]}",
    ],
)
def test_a_check_that_works_is_not_told(ensure):
    assert not warnings(TOP % (f"plugins: {{ensure: {{}}}}, ensure: {ensure}", ""))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("thresholds: []", "config.thresholds: has no effect here: it belongs under `config.ensure`"),
        ("mode: bogus", "config.mode: no such mode: 'bogus'; uniform is used"),
        ("phases: [{duration: 1, arrivalRate: 1, mode: posson}]", "(did you mean `poisson`?)"),
        ("phases: [{duration: 1, arrivalRate: 1, arrivalCount: 1}]", "config.phases[0].arrivalRate: has no effect"),
        ("phases: [{pause: 1, arrivalRate: 1}]", "config.phases[0].arrivalRate: has no effect: the phase is a `pause`"),
        ("http: {defaults: {timeout: 1}}", "config.http.defaults.timeout: `timeout` has no effect"),
        ("http: {defaults: {think: {min: 1}}}", "config.http.defaults.think.min: `min` has no effect"),
        ("http: {defaults: {think: {jitter: lots}}}", "a jitter is `20%` or a number of milliseconds, not 'lots'"),
        ("http: {timeout: 10s}", "config.http.timeout: must be a number of seconds above 0, not '10s': 10 is used"),
        ("http: {pool: many}", "config.http.pool: must be a number of connections, 1 or more, not 'many'"),
        ("http: [1]", "config.http: must be an object"),
        ("tls: {rejectUnauthorized: 'false'}", "config.tls.rejectUnauthorized: must be true or false, without quotes"),
        ("rejectUnauthorized: false", "config.rejectUnauthorized: has no effect here: it belongs under `config.tls`"),
        ("think: 3", "config.think: has no effect here: it belongs under `scenarios[].flow`"),
        ("phases: [{pause: 1, mode: poisson}]", "config.phases[0].mode: has no effect: the phase is a `pause`"),
        ("phases: [{duration: 1, arrivalCount: 0}]", "config.phases[0].arrivalCount: is 0: no virtual user is started"),
        ("phases: [{duration: 1, arrivalRate: 1, maxVusers: 0}]", "every arrival is skipped"),
        ("plugins: [ensure, expect]", "config.plugins: must be an object: it has no effect"),
        ("plugins: ensure", "config.plugins: must be an object: it has no effect"),
        ("variables: foo", "config.variables: must be an object: it has no effect"),
        ("variables: [a]", "config.variables: must be an object: it has no effect"),
        ("environments: [a]", "config.environments: must be an object: it has no effect"),
        ("plugins: {apdex: {}}, apdex: 5", "config.apdex: must be an object: it has no effect"),
        (
            "plugins: {apdex: {threshold: foo}}",
            "apdex.threshold: must be a number of milliseconds above 0, not 'foo': 500",
        ),
        (
            "plugins: {apdex: {}}, apdex: {threshold: 0}",
            "config.apdex.threshold: must be a number of milliseconds above 0",
        ),
        ("http: {defaults: {headers: {X-A: }}}", "config.http.defaults.headers.X-A: no request can be sent with it"),
        ("defaults: {headers: {X A: b}}", "config.defaults.headers.X A: no request can be sent with it"),
    ],
)
def test_a_key_without_effect_is_told(config, said):
    found = warnings(TOP % (config, ""))
    assert len(found) == 1 and said in found[0]


@pytest.mark.parametrize(
    ("capture", "said"),
    [
        ("{regexp: '(', as: a}", "capture.regexp: cannot be read"),
        ("{json: '$.[[', as: a}", "capture.json: cannot be read"),
        ("{selector: 'a[[', as: a}", "capture.selector: cannot be read"),
    ],
)
def test_a_capture_that_cannot_be_read_is_told_in_one_line(capture, said):
    found = warnings(TOP % ("phases: [{duration: 1, arrivalRate: 1}]", f", capture: {capture}"))
    assert len(found) == 1 and said in found[0] and "\n" not in found[0]


@pytest.mark.parametrize("config", ["variables: null", "plugins: {}", "plugins: null", "environments: {a: {}}"])
def test_a_section_that_is_empty_or_an_object_is_not_told(config):
    assert not warnings(TOP % (config, ""))


def test_an_apdex_threshold_that_is_none_is_the_default():
    assert read(TOP % ("plugins: {apdex: {threshold: foo}}", "")).apdex_threshold_ms == 500
    assert read(TOP % ("plugins: {apdex: {threshold: '20'}}", "")).apdex_threshold_ms == 20


@pytest.mark.parametrize(
    ("target", "is_one"),
    [
        ("http://h", True), ("https://h:8443/base", True), ("http://[::1]:80", True), ("HTTP://h", True),
        ("localhost:80", False), ("http://x:99999/", False), ("http//x", False), ("ws://x", False), ("/", False),
    ],
)  # fmt: skip
def test_a_target_that_nothing_can_be_sent_to_is_told(target, is_one):
    found = warnings(f"config: {{target: '{target}'}}\nscenarios: [{{flow: [{{get: {{url: /}}}}]}}]")
    said = "s.yml:1:10: config.target: no request can be sent there: it must begin with http:// or https:// and name a host"
    assert found == ([] if is_one else [said])


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("get: {url: users/1}", "get.url: {} Invalid URL - users/1"),
        ("get: {url: ws://x/}", "get.url: {} Invalid URL - ws://x/"),
        ("get: {url: http//x/}", "get.url: {} ERR_UNSUPPORTED_PROTOCOL"),
        ("head: {uri: 'http://x:99999/'}", "head.uri: {} ERR_INVALID_URL"),
        ("get: {url: /, json: {a: '{{ x }}'}}", "get.json: {} ERR_GOT_REQUEST_ERROR"),
        ("head: {url: /, form: {a: 1}}", "head.form: {} ERR_GOT_REQUEST_ERROR"),
        ("get: {url: /, body: text}", "get.body: {} ERR_GOT_REQUEST_ERROR"),
        ("post: {url: /, body: {a: 1}}", "post.body: {} ERR_GOT_REQUEST_ERROR"),
        ("post: {url: /, formData: {a: true}}", "post.formData: {} ERR_INVALID_ARG_TYPE"),
        ("get: {url: /, headers: {X-A: }}", "get.headers.X-A: {} ERR_GOT_REQUEST_ERROR"),
        ("get: {url: /, headers: {X A: b}}", "get.headers.X A: {} ERR_INVALID_HTTP_TOKEN"),
        ("get: {url: /, headers: {X A: '{{ x }}'}}", "get.headers.X A: {} ERR_INVALID_HTTP_TOKEN"),
        ('get: {url: /, headers: {X-A: "a\\nb"}}', "get.headers.X-A: {} ERR_INVALID_CHAR"),
        ("get: {url: '{{ x }}', json: '{{ x }}', headers: {X-A: '{{ x }}'}}", None),
        ("get: {url: 'http://{{ x }}/', headers: {X-A: 5, X-B: [a, b], X-C: ''}}", None),
        ("post: {url: 'http://h/ä b', json: , qs: {a: }}", None),
    ],
)
def test_a_request_that_can_never_be_sent_is_told_with_its_error(step, said):
    found = warnings(f"config: {{target: http://h, variables: {{x: /}}}}\nscenarios: [{{flow: [{{{step}}}]}}]")
    cannot = "no request can be sent with it: the virtual user fails here with"
    assert [warning.partition("flow[0].")[2] for warning in found] == ([] if said is None else [said.format(cannot)])


def test_a_request_that_a_function_may_mend_is_not_told():
    text = (
        "config: {target: http://h, processor: p.py}\nscenarios: [{flow: [{get: {url: x, body: y, beforeRequest: f}}]}]"
    )
    assert not warnings(text, b"def f(request, user): pass")


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        (
            "[{statuscode: 200}]",
            "expect[0].statuscode: there is no expectation `statuscode`: nothing is checked (did you mean",
        ),
        ("{hasproperty: a}", "expect.hasproperty: there is no expectation `hasproperty`"),
        ("200", "expect: is no expectation: an object with a key such as `statusCode`"),
        ("[{}]", "expect[0]: is no expectation"),
        (
            "{hasHeader: Content-Type}",
            "expect.hasHeader: finds nothing, as in Artillery: headers of answers have their names",
        ),
        ("{headerEquals: [Content-Type, B]}", "expect.headerEquals: finds nothing"),
        ("{jmespath: 'a['}", "expect.jmespath: cannot be read, so this always fails"),
        (f"{{jmespath: '{'(' * 3000}a{')' * 3000}'}}", "expect.jmespath: cannot be read, so this always fails"),
        ("{matchesRegexp: '('}", "expect.matchesRegexp: cannot be read, so this always fails"),
        ("[{statusCode: 200}, {hasHeader: content-type}, {headerEquals: [x-a, B]}, {jmespath: 'a.b'}]", None),
        ("{hasHeader: '{{ A }}', jmespath: '{{ b', matchesRegexp: '{{ c }}('}", None),
    ],
)
def test_an_expectation_that_there_is_not_or_that_never_holds_is_told(expect, said):
    found = warnings(TOP % ("plugins: {expect: {}}, variables: {A: a, c: c}", f", expect: {expect}"))
    assert not found if said is None else len(found) == 1 and said in found[0], found


@pytest.mark.parametrize("role", ["capture", "match"])
def test_a_header_that_is_looked_for_in_capitals_is_told(role):
    found = warnings(TOP % ("", f", {role}: {{header: Content-Type, as: a, value: b}}"))
    assert len(found) == 1 and f".{role}.header: finds nothing, as in Artillery" in found[0]
    assert not warnings(TOP % ("", f", {role}: {{header: content-type, as: a, value: b}}"))


@pytest.mark.parametrize(
    ("payload", "content", "said"),
    [
        (
            "order: sequental",
            b"1,2\n",
            "payload.order: no such order: 'sequental'; rows are taken at random (did you mean",
        ),
        ("fields: [a, a]", b"1,2\n", "payload.fields: `a` is there more than once"),
        ("fields: [a, b, c, d]", b"1,2\n", "payload.fields: the file has no column for `c`: it has 2"),
        (
            "fields: [user, pass]",
            b"user, Pass\nx,y\n",
            "payload: the first line names the fields, and is a row like the others",
        ),
        ("fields: [a, b]", "1,2\n3,é\n".encode("latin-1"), "payload.path: u.csv: not UTF-8 (first in line 2)"),
        ("fields: [user, pass], skipHeader: true", b"user,pass\nx,y\n", None),
        ("fields: [a], order: sequence", "\ufeff1,2\n3,é\n".encode(), None),
        ("fields: [a], order: ", b"1,2\n", None),
    ],
)
def test_a_payload_that_is_not_what_it_seems_is_told(payload, content, said):
    found = warnings(TOP % (f"payload: {{path: u.csv, {payload}}}", ""), content)
    assert not found if said is None else len(found) == 1 and said in found[0], found


@pytest.mark.parametrize(
    ("scenarios", "said"),
    [
        ("[{name: a, requests: [{get: {url: /}}]}]", "scenarios[0].requests: `flow` is missing (did you mean `flow`?)"),
        ("[{name: a, flows: [{get: {url: /}}]}]", "scenarios[0].flows: `flow` is missing (did you mean `flow`?)"),
        ("[{name: a}, {flow: []}]", "scenarios[1]: `flow` stands in an element of its own: without its dash"),
        ("[{name: a}]", "scenarios[0]: `flow` is missing"),
    ],
)
def test_a_scenario_without_a_flow_is_refused_with_what_was_probably_meant(scenarios, said):
    with pytest.raises(ScriptErrors) as refused:
        read(f"config: {{target: http://h}}\nscenarios: {scenarios}")
    assert said in str(refused.value.problems[0])


def test_skipping_what_is_unsupported_does_not_say_that_nothing_calls_the_processor():
    text = "config: {target: http://h, processor: ./a.js}\nscenarios: [{flow: [{function: f}, {get: {url: /}}]}]"
    found = parse_script([("s.yml", text)], RunOptions(skip_unsupported=True), lambda _: b"").warnings
    assert not any("nothing in the script calls it" in str(warning) for warning in found)
