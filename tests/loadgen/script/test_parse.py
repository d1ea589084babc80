"""What a script must be, what it may be, and what the options change."""

import json
from random import Random

import pytest

from loadgen.language.values import number
from loadgen.script.durations import LONGEST_S, think_seconds
from loadgen.script.durations import seconds as duration_seconds
from loadgen.script.model import Loop, ScriptErrors, TextBody
from loadgen.script.parse import RunOptions, parse_script

TARGET = "config: {target: 'http://h:8080'}\n"
FLOW = "scenarios:\n  - flow:\n      - get: {url: /}\n"


def parse(text, files=None, name="s.yml", more=(), **options):
    contents = files or {}

    def read_file(path):
        try:
            return contents[path.rpartition("/")[2]]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    return parse_script([(name, text), *more], RunOptions(directory="/w", **options), read_file, Random(1))


def problems(text, **options):
    with pytest.raises(ScriptErrors) as refused:
        parse(text, **options)
    return [str(problem) for problem in refused.value.problems]


def warnings(text, **options):
    return [str(warning) for warning in parse(text, **options).warnings]


def flow(items, config="{target: 'http://h'}"):
    return json.dumps({"config": "CONFIG", "scenarios": [{"flow": items}]}).replace('"CONFIG"', config)


def test_without_phases_one_user_arrives():
    (only,) = parse(TARGET + FLOW).phases
    assert (only.duration_s, only.arrival_count) == (1, 1)


def test_solo_replaces_all_phases():
    script = parse("config: {target: http://h, phases: [{duration: 60, arrivalRate: 9}]}\n" + FLOW, solo=True)
    assert [(p.duration_s, p.arrival_count) for p in script.phases] == [(1, 1)]


@pytest.mark.parametrize(
    ("written", "seconds", "shown"),
    [
        ("2", 2, "2s"), ("'90'", 90, "90s"), ("500ms", 0.5, "500ms"), ("1.5m", 90, "1.5m"), ("2 min", 120, "2 min"),
        ("1h", 3600, "1h"), ("1 day", 86400, "1 day"), ("2secs", 2, "2secs"),
    ],
)  # fmt: skip
def test_durations_have_units(written, seconds, shown):
    (phase,) = parse(
        f"config: {{target: http://h, phases: [{{duration: {written}, arrivalRate: '3'}}]}}\n{FLOW}"
    ).phases
    assert (phase.duration_s, phase.duration_text, phase.arrival_rate) == (seconds, shown, 3)


def test_a_long_text_of_digits_is_read_in_time_that_grows_with_its_length():
    # An answer may have it. Where each way of splitting the digits was tried, this took minutes.
    digits = "9" * 200_000
    assert number(f"{digits}x") is None and number(f"{digits}.{digits}x") is None
    assert duration_seconds(f"{digits}%") is None and think_seconds(f"{digits}.{digits}%") is None
    assert think_seconds(".5 s") == think_seconds("0.5s") == 0.5 and think_seconds("5.s") is None
    assert (number("5."), number(".5"), number("5.5e1"), number(".")) == (5, 0.5, 55, None)


@pytest.mark.parametrize("written", ["2.5", "abc", "0", "-1", "[]", "1e300", ".inf", "11y", f"1{'0' * 400}"])
def test_other_durations_are_refused(written):
    (said,) = problems(f"config: {{target: http://h, phases: [{{duration: {written}, arrivalRate: 1}}]}}\n{FLOW}")
    assert "config.phases[0].duration: Invalid duration for phase" in said


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("{pause: 1e300}", "longer than ten years"),
        ("{duration: 2e10, arrivalRate: 1e308}", "arrivalRate: must be at most 1,000,000,000, not"),
        ("{duration: 2, rampTo: 1e308}", "rampTo: must be at most"),
        ("{duration: 2, arrivalCount: 1e308}", "arrivalCount: must be at most"),
        ("{duration: 2, arrivalRate: 1, maxVusers: 1e308}", "maxVusers: must be at most"),
    ],
)
def test_phases_beyond_any_machine_are_refused(phase, said):
    assert any(said in problem for problem in problems(f"config: {{target: http://h, phases: [{phase}]}}\n{FLOW}"))


def test_a_phase_without_duration_is_refused():
    assert "needs a `duration`" in problems("config: {target: http://h, phases: [{arrivalCount: 3}]}\n" + FLOW)[0]


def test_a_rate_of_zero_is_a_pause_with_a_warning():
    text = "config: {target: http://h, phases: [{duration: 3, arrivalRate: 0}]}\n" + FLOW
    assert parse(text).phases[0].pause
    assert "no arrivals" in warnings(text)[0]


def test_a_pause_of_no_length_is_left_out():
    text = 'config: {target: http://h, phases: [{pause: 0}, {pause: "0"}, {duration: 1, arrivalRate: 1}]}\n' + FLOW
    assert [(p.index, p.pause, p.duration_text) for p in parse(text).phases] == [(0, True, "0s"), (1, False, "1s")]
    assert "left out" in warnings(text)[0]


def test_a_phase_of_no_length_is_refused():
    text = "config: {target: http://h, phases: [{duration: 0, arrivalRate: 1}]}\n" + FLOW
    assert "Invalid duration for phase: 0" in problems(text)[0]


def test_poisson_comes_from_the_configuration_the_phase_or_the_option():
    rates = "phases: [{duration: 1, arrivalRate: 1}]}\n" + FLOW
    assert parse("config: {target: http://h, mode: poisson, " + rates).phases[0].poisson
    assert parse("config: {target: http://h, " + rates, poisson=True).phases[0].poisson
    assert not parse("config: {target: http://h, " + rates).phases[0].poisson


_CALLS_LOGIN = (
    's.yml:9:9: scenarios[0].flow[2].function: the JavaScript function "login": not supported. '
    "Write it in Python (config.processor), or remove it"
)


def test_all_problems_are_told_at_once_each_with_its_place():
    text = (
        "config:\n  target: http://h\n  phases: [{duration: x, arrivalRate: 1}]\nscenarios:\n  - flow:\n"
        "      - gte: {url: /}\n      - think: 1\n        jitter: 5%\n      - function: login\n      - get: {url: 5}\n"
    )
    assert problems(text) == [
        "s.yml:3:13: config.phases[0].duration: Invalid duration for phase: x",
        "s.yml:6:9: scenarios[0].flow[0].gte: `gte` is not an HTTP method that can be sent (did you mean `get`?)",
        "s.yml:7:9: scenarios[0].flow[1]: must have exactly one key, has `think`, `jitter`",
        _CALLS_LOGIN,
        "s.yml:10:15: scenarios[0].flow[3].get.url: `url` must be a text",
    ]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([5], "must be an object"),
        ([{}], "exactly one key"),
        ([{"get": "/x"}], "an object with a `url`"),
        ([{"get": {}}], "`url` must be a text"),
        ([{"get": {"url": "/", "headers": "x"}}], "headers: must be an object"),
        ([{"get": {"url": "/", "qs": []}}], "qs: must be an object"),
        ([{"get": {"url": "/", "followRedirect": "maybe"}}], "followRedirect: must be true or false"),
        ([{"get": {"url": "/", "auth": {"user": 1, "pass": "x"}}}], "auth.user: must be a text"),
        ([{"get": {"url": "/", "capture": {"json": "$"}}}], "`as` must name a variable"),
        ([{"log": 5}], "log: must be a text"),
        ([{"think": []}], "think: must be a number or a text"),
        ([{"loop": {}, "count": 1}], "loop: must be a list"),
        ([{"loop": [], "count": 1}, {"loop": [{"log": "x"}]}], "never ends"),
        ([{"loop": [{"log": "x"}], "count": 0}], "a loop with `count: 0` never ends"),
        ([{"loop": [{"log": "x"}], "count": "Infinity"}], "a loop with `count: Infinity` never ends"),
        ([{"loop": [{"log": "x"}], "whileTrue": "f", "count": 1}], "JavaScript condition"),
        ([{"get": {"url": "/", "beforeRequest": "sign"}}], 'the JavaScript hook "sign"'),
    ],
)  # fmt: skip
def test_what_artillery_refuses_is_refused(items, said):
    assert any(said in problem for problem in problems(flow(items)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TARGET, "`scenarios` is missing"),
        (TARGET + "scenarios: 5", "must be a list"),
        (TARGET + "scenarios: [{name: x}]", "`flow` is missing"),
        (TARGET + "scenarios: []", "no scenario"),
        (FLOW, "No target specified and no environment chosen"),
        ("config: {target: 5}\n" + FLOW, "config.target: must be a text"),
        ("config: {target: http://h, http: {timeout: []}}\n" + FLOW, "timeout: must be a number or a text"),
        (TARGET + "scenarios: [{engine: playwright, flow: []}]", "the engine 'playwright'"),
        (TARGET + "scenarios: [{afterScenario: f, flow: []}]", "the JavaScript hook"),
        (TARGET + "scenarios: [{flow: [{loop: [{log: x}], count: .inf}]}]", "a loop with `count: inf` never ends"),
        ("- 1", "an object with `config`"),
    ],
)
def test_other_faults_are_refused(text, said):
    assert any(said in problem for problem in problems(text))


def test_a_script_of_another_type_is_refused():
    assert "unknown file type" in problems("x", name="s.js")[0]


def test_json_scripts_are_read_by_the_same_rules():
    assert (
        parse('{\n\t"config": {"target": "http://h"},\n\t"scenarios": [{"flow": []}]}', name="s.json").target
        == "http://h"
    )


def test_unsupported_things_can_be_skipped():
    script = parse(flow([{"function": "f"}, {"get": {"url": "/"}}]), skip_unsupported=True)
    assert len(script.scenarios[0].flow) == 1
    assert "skipped" in str(script.warnings[0])


def test_a_processor_that_nothing_calls_is_a_warning():
    assert any("JavaScript is not run" in w for w in warnings("config: {target: http://h, processor: x.js}\n" + FLOW))


def test_slips_of_the_pen_are_warned_of_with_the_nearest_key():
    text = "config: {target: http://h, phases: [{duration: 1, arivalRate: 5}]}\n" + FLOW
    assert "`arivalRate` has no effect (did you mean `arrivalRate`?)" in warnings(text)[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (flow([{"think": 0.5}]), "fraction of a second"),
        (flow([{"think": "soon"}]), "not a think time"),
        (flow([{"get": {"url": "/", "expect": {"statusCode": 200}}}]), "the expect plugin is not listed"),
        (flow([], "{target: 'http://h', ensure: {p95: 5}}"), "the ensure plugin is not listed"),
        (flow([], "{target: 'http://h', http: {maxSockets: 5}}"), "maxSockets"),
        (flow([], "{target: 'http://h', plugins: {slack: {}}}"), "config.plugins.slack: plugin slack is not available"),
        (
            flow([], "{target: 'http://h', plugins: {ensure: {p95: 5, suppressOutput: true}}}"),
            "`suppressOutput` has no effect",
        ),
        (
            flow([], "{target: 'http://h', variables: {a: '{{ $randomInt(1, 2) }}'}}"),
            "no template function `$randomInt`",
        ),
        (flow([{"get": {"url": "/", "ifTrue": "n =="}}]), "it counts as true"),
        (flow([{"post": {"url": "/", "json": {}, "form": {"a": 1}}}]), "exclude each other"),
    ],
)
def test_what_artillery_passes_over_in_silence_is_warned_of(text, said):
    assert any(said in warning for warning in warnings(text))


def test_a_clean_script_has_no_warnings():
    assert warnings(TARGET + FLOW) == []


def test_an_environment_is_merged_and_its_phases_by_index():
    text = (
        "config:\n  target: http://h\n  phases: [{duration: 1, arrivalRate: 1}, {duration: 2, arrivalRate: 2}]\n"
        "  environments: {prod: {target: http://p, phases: [{arrivalRate: 9}]}}\n" + FLOW
    )
    script = parse(text, environment="prod")
    assert script.target == "http://p"
    assert [(p.duration_s, p.arrival_rate) for p in script.phases] == [(1, 9), (2, 2)]


def test_an_unknown_environment_is_a_warning():
    text = TARGET + FLOW
    assert "environment prod is set but is not defined in the script" in warnings(text, environment="prod")[0]


def test_overrides_replace_lists_and_variables_win_over_the_environments():
    text = (
        "config:\n  target: http://h\n  variables: {a: 1, b: 1}\n  phases: [{duration: 1, arrivalRate: 1}, {pause: 1}]\n"
        "  environments: {e: {variables: {a: 2}}}\n" + FLOW
    )
    overrides = '{"config": {"phases": [{"duration": 5, "arrivalRate": 2}]}}'
    script = parse(text, environment="e", variables='{"a": 3}', overrides=overrides)
    assert script.variables == {"a": 3, "b": 1}
    assert [p.duration_s for p in script.phases] == [5]


def test_the_target_option_wins_and_is_enough():
    assert parse(FLOW, target="http://t").target == "http://t"
    assert parse(TARGET + FLOW, target="http://t").target == "http://t"


@pytest.mark.parametrize("option", ["variables", "overrides"])
def test_options_that_are_no_json_are_refused(option):
    assert problems(TARGET + FLOW, **{option: "{"})[0].startswith(f"--{option}: not JSON")


@pytest.mark.parametrize("config", ["null", "5", "[]", '"x"'])
def test_overrides_that_take_the_configuration_away_are_refused(config):
    said = problems(TARGET + FLOW, overrides=f'{{"config": {config}}}', variables='{"a": 1}')
    assert said == ["--overrides: `config` must be an object"]


def test_files_are_merged_in_order():
    more = [("c.yml", "config: {target: http://c, variables: {x: 1}}")]
    script = parse(TARGET + FLOW, more=more)
    assert (script.target, script.variables) == ("http://c", {"x": 1})


def test_config_templates_are_filled_in_once_with_what_is_known_before_the_run():
    text = (
        "config:\n  target: 'http://{{ $env.HOST }}'\n  variables: {id: '{{ $testId }}', e: '{{ $environment }}', u: '{{ v }}'}\n"
        "  phases: [{duration: 1, arrivalRate: '{{ $processEnvironment.RATE }}'}]\n" + FLOW
    )
    script = parse(text, env={"HOST": "x", "RATE": "7"}, test_id="t1", environment="e", variables='{"v": [1]}')
    assert script.target == "http://x"
    assert script.variables == {"id": "t1", "e": "e", "u": [1], "v": [1]}
    assert script.phases[0].arrival_rate == 7


def test_default_headers_leave_what_is_unknown_to_the_users():
    text = "config: {target: http://h, defaults: {headers: {a: '{{ $testId }}', b: 'v{{ id }}'}}}\n" + FLOW
    assert parse(text, test_id="t").http.headers == {"a": "t", "b": "v{{ id }}"}


def test_http_defaults_come_before_defaults_and_are_not_merged_with_them():
    text = "config: {target: http://h, http: {defaults: {headers: {a: 1}}}, defaults: {headers: {b: 1}}}\n" + FLOW
    assert parse(text).http.headers == {"a": 1}


@pytest.mark.parametrize(
    ("config", "timeout_s", "limit_s"),
    [("", 10, 8), (", http: {timeout: 2}", 2, 8), (", http: {timeout: 20}", 20, 20), (", http: {timeout: '20'}", 20, 8),
     (", timeout: 3, http: {timeout: 20}", 3, 8), (", timeout: .inf", LONGEST_S, LONGEST_S),
     (", http: {timeout: 1e300}", LONGEST_S, LONGEST_S), (", timeout: '1e300'", LONGEST_S, 8), (", timeout: .nan", 10, 8)],
)  # fmt: skip
def test_timeouts(config, timeout_s, limit_s):
    http = parse(f"config: {{target: http://h{config}}}\n{FLOW}").http
    assert (http.timeout_s, http.socket_limit_s) == (timeout_s, limit_s)


def test_weights_are_whole_numbers_and_may_be_templates():
    text = (
        "config: {target: http://h, variables: {w: 3}}\nscenarios:\n  - {weight: '{{ w }}', flow: []}\n  - {flow: []}\n"
        "  - {weight: soon, flow: []}\n"
    )
    assert [s.weight for s in parse(text).scenarios] == [3, 1, 0]


def test_a_scenario_is_chosen_by_name_or_pattern_and_keeps_its_index():
    text = TARGET + "scenarios: [{name: one, flow: []}, {name: two, flow: []}, {name: twenty, flow: []}]"
    (chosen,) = parse(text, scenario_name="^two$").scenarios
    assert (chosen.index, chosen.label) == (1, "two")
    assert "several scenarios match" in problems(text, scenario_name="tw")[0]
    for none in ("none", "a{99999999999}", "(" * 5000, "a("):
        assert "no scenario matches" in problems(text, scenario_name=none)[0]


def test_payload_cells_are_cast_and_the_header_line_is_data():
    text = "config: {target: http://h, payload: {path: p.csv, fields: [a, b]}}\n" + FLOW
    (payload,) = parse(text, {"p.csv": b'id,name\n007,true\n1e3,"x, y"\n\n'}).payloads
    assert payload.rows == (("id", "name"), (7, "true"), (1000, "x, y"))
    assert (payload.order, payload.fields) == ("random", ("a", "b"))


def test_payload_options():
    text = (
        "config: {target: http://h, payload: [{path: p.csv, fields: [a], order: sequence, skipHeader: true, cast: false, "
        "delimiter: ';'}, {path: p.csv, loadAll: true, name: all}]}\n" + FLOW
    )
    first, second = parse(text, {"p.csv": b"h;x\n1;2\n"}).payloads
    assert first.rows == (("1", "2"),) and first.order == "sequence"
    assert second.order == "all" and second.name == "all"


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [("{path: no.csv, fields: [a]}", {}, "cannot read no.csv: No such file"), ("{fields: [a]}", {}, "no `path`"),
     ("{path: p.csv}", {"p.csv": b"a,b\n1\n"}, "line 2 has 1 columns, the first row 2"),
     ("{path: p.csv, delimiter: 5}", {"p.csv": b"a"}, "delimiter: must be a text that separates cells"),
     ('{path: p.csv, delimiter: "\\n"}', {"p.csv": b"a"}, "delimiter: must be a text that separates cells"),
     ("{path: p.csv, options: {delimiter: [1]}}", {"p.csv": b"a"}, "options.delimiter: must be a text"),
     ("{path: p.csv, options: {quote: 7}}", {"p.csv": b"a"}, "options.quote: must be one character"),
     ("{path: p.csv, options: {quote: aa}}", {"p.csv": b"a"}, "options.quote: must be one character"),
     ("{path: p.csv, delimiter: ';', options: {quote: ';'}}", {"p.csv": b"a"}, "quotes cells, too")],
)  # fmt: skip
def test_payloads_that_cannot_be_read_are_refused(config, files, said):
    assert said in problems(f"config: {{target: http://h, payload: {config}}}\n{FLOW}", files=files)[0]


def test_a_cell_may_be_long():
    text = "config: {target: http://h, payload: {path: p.csv, fields: [a]}}\n" + FLOW
    assert parse(text, {"p.csv": b"x" * 200_000}).payloads[0].rows == (("x" * 200_000,),)


def test_the_payload_option_names_the_file():
    text = "config: {target: http://h, payload: {fields: [a]}}\n" + FLOW
    assert parse(text, {"x.csv": b"5\n"}, payload="x.csv").payloads[0].rows == ((5,),)


def test_loops_count_or_go_over():
    steps = parse(
        flow(
            [
                {"loop": [{"log": "x"}], "count": -1},
                {"loop": [], "over": "list"},
                {"loop": [{"think": 1, "jitter": 5}], "over": [1]},
            ]
        )
    )
    counted, over, literal = steps.scenarios[0].flow
    assert isinstance(counted, Loop) and counted.count == -1
    assert over.over == "list"
    assert literal.over == (1,)
    assert literal.steps[0].jitter == 5, "inside a loop, an item may have several keys"


def test_json_displaces_body():
    (request,) = parse(flow([{"post": {"url": "/", "json": {"a": 1}, "body": "x"}}])).scenarios[0].flow
    assert not any(isinstance(body, TextBody) for body in request.bodies)


def test_expectations_may_be_a_list_or_an_object():
    listed = flow(
        [{"get": {"url": "/", "expect": [{"statusCode": 200}, {"hasHeader": "x"}]}}],
        "{target: 'http://h', plugins: {expect: {}}}",
    )
    one = flow(
        [{"get": {"url": "/", "expect": {"statusCode": 200, "hasHeader": "x"}}}],
        "{target: 'http://h', plugins: {expect: {}}}",
    )
    for text in (listed, one):
        (request,) = parse(text).scenarios[0].flow
        assert [(e.kind, e.expected) for e in request.expectations] == [("statusCode", 200), ("hasHeader", "x")]


def test_metrics_by_endpoint_is_hidden_unless_it_is_listed():
    assert parse(TARGET + FLOW).hidden_metrics == ("plugins.metrics-by-endpoint",)
    assert parse(TARGET + FLOW).endpoint_metrics.strip_query
    script = parse("config: {target: http://h, plugins: {metrics-by-endpoint: {useOnlyRequestNames: true}}}\n" + FLOW)
    assert script.hidden_metrics == ()
    assert script.endpoint_metrics.only_request_names and not script.endpoint_metrics.strip_query


def test_uploads_are_read_beside_the_script():
    text = flow([{"post": {"url": "/", "formData": {"f": {"fromFile": "up/pic.png"}, "n": 5}}}])
    (request,) = parse(text, {"pic.png": b"PNG"}).scenarios[0].flow
    upload, scalar = request.bodies[0].parts
    assert (upload.content, upload.file_name, upload.content_type) == (b"PNG", "pic.png", "image/png")
    assert (scalar.name, scalar.value) == ("n", 5)
    assert "cannot read up/pic.png" in problems(text)[0]


def test_an_unquoted_template_gets_a_hint():
    assert "quote a text that begins with" in problems("config: {target: {{ x }}}\n" + FLOW)[0]


def test_the_shipped_starter_script_is_clean():
    with open("examples/quickstart.yml") as file:  # noqa: PTH123
        script = parse(file.read())
    assert script.warnings == () and len(script.scenarios) == 2
