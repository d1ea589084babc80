"""Parts of a script that do nothing are warned of before anything is sent."""

import json

import pytest

from loadgen.script.parse import RunOptions, parse_script

GET = {"get": {"url": "/"}}
PHASE = {"duration": 1, "arrivalRate": 1}


def warnings(flow=None, *, before=None, scenario=None, **config):
    script = {
        "config": {"target": "http://a", "phases": [PHASE], **config},
        "scenarios": [{"flow": [GET] if flow is None else flow, **(scenario or {})}],
        **({} if before is None else {"before": {"flow": before}}),
    }
    parsed = parse_script([("s.json", json.dumps(script))], RunOptions(), lambda _: b"")
    return [f"{problem.place.path}: {problem.message}" for problem in parsed.warnings]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"flow": []}, "scenarios[0].flow: is empty"),
        ({"before": []}, "before.flow: is empty"),
        ({"flow": [{"think": 1}, {"log": "x"}]}, "scenarios[0].flow: makes no request"),
        ({"flow": [GET, {"loop": [], "count": 2}]}, "scenarios[0].flow[1].loop: is empty"),
        ({"flow": [GET, {"parallel": []}]}, "scenarios[0].flow[1].parallel: is empty"),
        ({"flow": [{"loop": [GET], "over": []}]}, "scenarios[0].flow[0].over: is empty"),
        ({"flow": [{"get": {"url": "/", "capture": []}}]}, "scenarios[0].flow[0].get.capture: is empty"),
        ({"flow": [{"loop": [{"get": {"url": "/", "match": []}}], "count": 1}]}, "[0].loop[0].get.match: is empty"),
        ({"flow": [{"get": {"url": "/", "probability": 0}}]}, "scenarios[0].flow[0].get.probability: is 0"),
        ({"http": {"defaults": {"think": {"jitter": "20%"}}}}, "config.http.defaults.think.jitter: has no effect"),
        ({"defaults": {"think": {"jitter": 5}}}, "config.defaults.think.jitter: has no effect"),
        ({"statsInterval": 5}, "config.statsInterval: has no effect"),
        ({"timeout": 0}, "config.timeout: must be a number of seconds above 0"),
        ({"http": {"timeout": 0}}, "config.http.timeout: must be a number of seconds above 0"),
        ({"http": {"pool": 0}}, "config.http.pool: must be a number of connections"),
        ({"http": {"maxSockets": 2}}, "config.http.maxSockets: has no effect"),
        ({"apdex": {"threshold": 100}}, "config.apdex: does nothing"),
        ({"ensure": {"p95": 100}}, "config.ensure: does nothing"),
        ({"plugins": {"ensure": {}}}, "config.plugins.ensure: checks nothing"),
        ({"plugins": {"ensure": {"thresholds": []}}}, "config.plugins.ensure.thresholds: is empty"),
        ({"plugins": {"ensure": {}}, "ensure": {"conditions": []}}, "config.ensure.conditions: is empty"),
        ({"plugins": {"no-such": {}}}, "config.plugins.no-such: plugin no-such is not available"),
        ({"variables": {"a": []}}, "config.variables.a: is empty"),
        ({"phases": []}, "config.phases: is empty"),
        ({"phases": [{"pause": 1}]}, "config.phases: are pauses only"),
        ({"phases": [{"duration": 1, "arrivalRate": 0}]}, "config.phases[0]: no arrivals"),
        ({"phases": [{**PHASE, "maxVusers": 0}]}, "config.phases[0].maxVusers: leaves no place"),
        ({"phases": [{**PHASE, "name": "a"}] * 3}, "config.phases[1].name: another phase has the name"),
    ],
)
def test_what_does_nothing_is_told_once_with_its_place(given, told):
    (warning,) = warnings(**given)
    assert told in warning


@pytest.mark.parametrize(
    "given",
    [
        {"flow": [GET, {"think": 1}], "http": {"defaults": {"think": {"jitter": "20%"}}}},
        {"flow": [{"loop": [{"parallel": [GET]}], "count": 2}]},
        {"phases": [{"pause": 1}, PHASE]},
        {"phases": [{**PHASE, "name": "a"}, {**PHASE, "name": "b"}, PHASE, PHASE]},
        {"plugins": {"ensure": {}}, "ensure": {"maxErrorRate": 1}},
        {"plugins": {"apdex": {}}, "apdex": {"threshold": 100}},
    ],
)
def test_what_does_something_is_not(given):
    assert warnings(**given) == []
