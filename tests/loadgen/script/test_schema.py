"""`loadgen schema`: it and the parser know the same keys, scripts that run are valid, and common slips are not."""

import json
import re

import jsonschema
import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.script import keys
from loadgen.script.schema import DRAFT, schema
from loadgen.script.yaml_reader import read_yaml
from loadgen.vu.expect import KINDS
from tests.loadgen.script.test_parse import parse
from tests.support.paths import ROOT

VALIDATOR = jsonschema.Draft202012Validator(schema())
GOLDEN = sorted((ROOT / "tests" / "golden" / "artillery").glob("[!_]*.yml"))
NOT_VALID = {
    "invalid-phase.yml": "a duration that is none",
    "invalid-script.yml": "steps that are none",
    "expect-pretty-failures.yml": "an expectation that does not exist",
    "nested-failures.yml": "an action that does not exist",
    "thinks-undefined.yml": "a think time below 0",
    "thinks-and-loops.yml": "a think time that is none",
    "quick.yml": "no script at all",
}


def complaints(value):
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(value)]


def test_the_command_prints_a_valid_schema_and_names_its_draft():
    printed = json.loads(CliRunner().invoke(cli, ["schema"]).stdout)
    assert printed["$schema"] == DRAFT
    jsonschema.Draft202012Validator.check_schema(printed)
    assert not re.search(r'"description": ""', json.dumps(printed))


@pytest.mark.parametrize("path", [each for each in GOLDEN if each.name not in NOT_VALID], ids=lambda path: path.name)
def test_scripts_that_artillery_runs_are_valid(path):
    assert complaints(read_yaml(path.name, path.read_text()).value) == []


@pytest.mark.parametrize("name", NOT_VALID)
def test_scripts_with_mistakes_are_not_valid(name):
    path = ROOT / "tests" / "golden" / "artillery" / name
    assert complaints(read_yaml(name, path.read_text()).value)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yml")), ids=lambda path: path.name)
def test_the_examples_are_valid(path):
    value = read_yaml(path.name, path.read_text()).value
    if isinstance(value, dict) and "scenarios" in value:
        assert complaints(value) == []


def test_every_expectation_and_every_key_of_the_tables_is_in_the_schema():
    assert set(keys.EXPECTATION) == set(KINDS)
    tables = {
        name: table
        for name, table in vars(keys).items()
        if re.fullmatch("[A-Z][A-Z_]+", name) and isinstance(table, dict)
    }
    properties = [set(each["properties"]) for each in [schema(), *schema()["$defs"].values()] if "properties" in each]
    nested = [set(each["then"]["properties"]) for each in schema()["$defs"]["receiver"]["allOf"]]
    for name, table in tables.items():
        if name not in ("TLS_TEXTS", "LOOP"):
            assert set(table) in properties + nested, name


REQUEST = {"get": {"url": "/"}}
PLACES = {
    "PHASE": lambda key: {"config": {"phases": [{"duration": 1, "arrivalCount": 1, key: 1}]}},
    "HTTP": lambda key: {"config": {"http": {key: {}}}},
    "TLS": lambda key: {"config": {"tls": {key: "x"}}},
    "DEFAULTS": lambda key: {"config": {"http": {"defaults": {key: {}}}}},
    "ENSURE": lambda key: {"config": {"plugins": {"ensure": {}}, "ensure": {key: 1}}},
    "REQUEST": lambda key: {"scenarios": [{"flow": [{"get": {"url": "/", key: "x"}}]}]},
    "CAPTURE": lambda key: {"scenarios": [{"flow": [{"get": {"url": "/", "capture": {"json": "$", "as": "a", key: "x"}}}]}]},
    "LOOP": lambda key: {"scenarios": [{"flow": [{"loop": [REQUEST], "count": 1, key: 1}]}]},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_parser_has_no_objection_to_a_key_of_the_schema_and_warns_of_others(place):
    for key in [*vars(keys)[place], "strangeKey"]:
        given = PLACES[place](key)
        script = {"config": {"target": "http://h"} | given.get("config", {}), "scenarios": [{"flow": [REQUEST]}]}
        script |= {"scenarios": given["scenarios"]} if "scenarios" in given else {}
        try:
            said = [str(warning) for warning in parse(json.dumps(script)).warnings]
        except Exception as error:
            said = [str(error)]
        unknown = any(f"`{key}` has no effect" in line for line in said)
        assert unknown == (key == "strangeKey"), (key, said)
        if unknown:
            assert complaints(script)


VALID = {
    "config": {"target": "http://h", "phases": [{"duration": "{{ $env.D }}", "arrivalRate": "5"}]},
    "scenarios": [{"flow": [REQUEST, {"think": "500ms"}, {"loop": [{"log": "x"}], "count": "2-4"}, {"GET": {"url": "/"}}]}],
}  # fmt: skip


def test_templates_and_units_are_valid():
    assert complaints(VALID) == []
    more = {"duration": 5, "concurrency": 3}
    assert complaints({**VALID, "config": {"phases": [{"pause": "1 min"}, more]}}) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": []}, {"scenarios": []}, {"scenarios": [{"requests": []}]}, {"scenarios": [{"flow": {}}]},
        {"scenarios": [{"flow": [{"gte": {"url": "/"}}]}]}, {"scenarios": [{"flow": [{"get": {"ulr": "/"}}]}]},
        {"scenarios": [{"flow": [{"get": {"url": "/", "capture": {"jsn": "$"}}}]}]},
        {"scenarios": [{"flow": [{"get": {"url": "/"}, "think": 1}]}]},
        {"scenarios": [{"flow": [{"loop": [], "cuont": 1}]}]}, {"scenarios": [{"flow": [{"think": "5 parsecs and"}]}]},
        {"scenarios": [{"flow": [{"get": {"url": "/", "expect": {"status": 200}}}]}]},
        {**VALID, "config": {"phases": {"duration": 1}}}, {**VALID, "config": {"phases": [{"arrivalRate": 1}]}},
        {**VALID, "config": {"phases": [{"duration": 1, "arivalRate": 1}]}},
        {**VALID, "config": {"phases": [{"duration": 1, "mode": "bogus"}]}},
        {**VALID, "config": {"phases": [{"duration": 1, "concurrency": 1, "arrivalRate": 1}]}},
        {**VALID, "config": {"ensure": []}}, {**VALID, "config": {"ensure": {"p95": "< 1500"}}},
        {**VALID, "config": {"tls": {"rejectUnauthorised": False}}},
        {**VALID, "config": {"plugins": {"publish-metrics": [{"type": "prometheus"}]}}},
        {**VALID, "config": {"plugins": {"publish-metrics": {"type": "prometheus"}}}},
    ],
    ids=lambda wrong: json.dumps(wrong)[-60:],
)  # fmt: skip
def test_common_slips_are_not_valid(wrong):
    assert complaints(wrong)
