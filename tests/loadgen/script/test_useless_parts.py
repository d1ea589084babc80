"""Parts of a script that can never do what they seem to do are told, each with its place."""

import pytest

from loadgen.script.model import ScriptErrors
from loadgen.script.parse import RunOptions, parse_script

TOP = "config: {target: http://h, %s}\nscenarios: [{flow: [{get: {url: / %s}}]}]"


def read(text):
    return parse_script([("s.yml", text)], RunOptions(directory="/w"), lambda _: b"")


def warnings(text):
    return [str(warning) for warning in read(text).warnings]


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
