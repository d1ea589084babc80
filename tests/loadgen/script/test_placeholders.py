"""Placeholders that nothing can fill in are told before anything is sent, each with its place."""

import json

import pytest

from loadgen.script.model import ScriptErrors
from loadgen.script.parse import RunOptions, parse_script


def warnings(text, files=None, **options):
    def read_file(path):
        return (files or {})[path.rpartition("/")[2]]

    script = parse_script([("s.yml", text)], RunOptions(directory="/w", **options), read_file)
    return [str(warning) for warning in script.warnings]


def script(url, *, config="", before="", rest=""):
    return f"""
config:
  target: http://h
  {config}
{before}
scenarios:
  - flow:
      - post: {{url: {json.dumps(url)}{rest}}}
"""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/{{ }}", "`{{ }}` is empty: it gives `undefined`"),
        ("/{{}}", "`{{}}` is empty"),
        ("/{{ [ }}", "`{{ [ }}` names no variable"),
        ("/{{ usr }}", "`{{ usr }}` is undefined: nothing sets `usr`. Did you mean `user`?"),
        ("/{{ user.id }}/{{ no.id }}", "`{{ no.id }}` is undefined: nothing sets `no`"),
        ("/{{ $responseBody.id }}", "nothing sets `$responseBody`"),
        ("/{{ $guid }}", "nothing sets `$guid`. Did you mean `$uuid`?"),
        ("/{{ $randomNumber }}", "a function is called with parentheses, `$randomNumber()`"),
        ("/{{ $randomNumbr(1, 2) }}", "no template function `$randomNumbr`: the whole text is undefined. Did you mean"),
        ("/{{ $randomEmail() }}", "no template function `$randomEmail`"),
        ("/{{ pick('a') }}", "is sent as it is written"),
        ("/{{ 1 + 1 }}", "is sent as it is written"),
        ("/{{ name | upper }}", "is sent as it is written"),
        ("/{{ $processEnvironment.NO }}", "the environment variable NO is not set"),
        ("/{{ $env.HOMEE }}", "the environment variable HOMEE is not set. Did you mean `HOME`?"),
        ("/{{ $environment }}", "no environment was chosen with -e"),
    ],
)
def test_a_placeholder_that_nothing_can_fill_in_is_told(url, said):
    found = warnings(script(url, config="variables: {user: {id: 1}}"), env={"HOME": "/root"})
    assert len(found) == 1 and found[0].startswith("s.yml:8:16: scenarios[0].flow[0].post.url: ") and said in found[0]


def test_each_placeholder_of_a_text_is_told():
    assert len(warnings(script("/{{ a }}/{{ b }}/{{ 1+1 }}"))) == 3


@pytest.mark.parametrize(
    "url",
    [
        "/{{ user }}/{{ user.name }}/{{user[0]}}",
        "/{{ id }}/{{ row.id }}",
        "/{{ $randomNumber(1, 9) }}/{{ $randomString() }}/{{ $uuid }}",
        "/{{ $processEnvironment.HOME }}/{{ $env.HOME }}/{{ $processEnvironment }}",
        "{{ target }}/{{ $testId }}/{{ $loopCount }}",
        "/{{ login.token }}",
        "/{ {not a placeholder} }",
    ],
)
def test_what_can_be_filled_in_is_not_told(url):
    config = """variables: {user: [a]}
  payload: [{path: a.csv, fields: [id]}, {path: a.csv, fields: [x], loadAll: true, name: row}]"""
    before = "before: {flow: [{get: {url: /, capture: {json: $, as: login}}}]}"
    assert not warnings(script(url, config=config, before=before), {"a.csv": b"1"}, env={"HOME": "/root"})


def test_captures_and_loops_set_variables_for_their_own_scenario_only():
    text = """
config: {target: http://h}
scenarios:
  - flow:
      - loop:
          - get: {url: "/{{ i }}/{{ it.id }}/{{ token }}", capture: {json: $.a, as: token}}
        over: "[]"
        loopElement: it
        loopValue: i
  - flow: [{get: {url: "/{{ token }}"}}]
"""
    assert [w.split(": ")[1] for w in warnings(text)] == ["scenarios[1].flow[0].get.url"]


def test_headers_bodies_queries_cookies_thinks_and_checks_are_looked_at():
    text = """
config: {target: http://h, plugins: {expect: {}}, defaults: {headers: {a: "{{ z }}"}}}
scenarios:
  - flow:
      - post:
          url: /
          headers: {a: "{{ z }}"}
          json: {a: [{b: "{{ z }}"}], "{{ z }}": 1}
          qs: {a: "{{ z }}"}
          cookie: {a: "{{ z }}"}
          capture: {json: "$.{{ z }}", as: y}
          expect: [{contentType: "{{ z }}"}]
      - think: "{{ z }}"
      - log: "{{ z }}"
"""
    assert len(warnings(text)) == 10


def test_a_processor_may_set_what_is_written_in_it():
    text = script("/{{ known }}/{{ unknown }}", config="processor: p.py")
    found = warnings(text, {"p.py": b"def f(user):\n    user.variables['known'] = 1\n"})
    assert len(found) == 1 and "`unknown`" in found[0]


def test_a_phase_without_its_variable_names_the_variable():
    text = (
        "config: {target: http://h, phases: [{duration: '{{ $env.SECS }}', arrivalRate: 1}]}\nscenarios: [{flow: []}]"
    )
    with pytest.raises(ScriptErrors) as refused:
        warnings(text)
    assert [str(p) for p in refused.value.problems] == [
        "s.yml:1:38: config.phases[0].duration: `{{ $env.SECS }}` is undefined: the environment variable SECS is not set"
    ]


def test_a_file_written_as_curl_does_is_told():
    found = warnings(script("/", rest=', formData: {file: "@./a.txt", mail: "me@example"}'))
    assert len(found) == 1 and "`{fromFile: ./a.txt}`" in found[0]


def test_a_template_of_braces_alone_gives_nothing_of_what_is_known():
    from loadgen.language.template import compile_template
    from loadgen.language.values import UNDEFINED

    variables = {"$processEnvironment": {"SECRET": "x"}, "a": 1}
    for text in ("{{ }}", "{{ [ }}", "{{.}}"):
        assert compile_template(text, {}).render(variables) is UNDEFINED
    assert compile_template("-{{ }}-", {}).render(variables) == "-undefined-"


def test_text_from_an_answer_is_not_filled_in_with_the_environment():
    from loadgen.language.template import compile_template

    for name in ("$processEnvironment", "$env"):
        said = f"{{{{ {name}.SECRET }}}}"
        variables = {name: {"SECRET": "hunter2"}, "said": said, "deeper": "{{ said }}"}
        for text in ("x{{ said }}", "x{{ deeper }}", "{{ said }}x{{ $f() }}"):
            assert "hunter2" not in compile_template(text, {"$f": lambda: ""}).render(variables)
        assert compile_template(f"x{said}", {}).render(variables) == "xhunter2"
